"""Sweeps: what is measured, that a stopped one goes on without measuring twice, and what the table and picture say."""

import csv

import pytest
import torch

from edm_lesson import LessonError, evaluation
from edm_lesson.designs import DESIGNS
from edm_lesson.evaluation import sweep as sweeps
from edm_lesson.evaluation.sweep import read_sweep, sweep, sweep_lines, sweep_points, sweep_table
from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.samplers import edm_sampler
from edm_lesson.samplers.images import SeededNoise


class Gaussian(torch.nn.Module):
    """The exact denoiser of a Gaussian, as a module with a weight; the ratio of its samples is the weight's own."""

    img_channels, img_resolution = 1, 4

    def __init__(self, std=0.5):
        super().__init__()
        self.std = torch.nn.Parameter(torch.tensor(std), requires_grad=False)

    def forward(self, x, sigma):
        return GaussianDenoiser(0.0, self.std.item())(x, sigma)


class Spread:
    """A judge that says how far the spread of the pixels is from 0.5."""

    count = 8

    def __init__(self):
        self.calls = 0

    def __call__(self, pixels):
        self.calls += 1
        ratio = (pixels.float() / 127.5 - 1).std().item() / 0.5
        return {"distance_ratio": ratio, "recognised": 0.5, "nearest": 1.0, "copies": 0.0}


def test_points_are_all_combinations_with_what_each_design_leaves_open():
    points = sweep_points(("edm", "vp"), (None, "euler"), (4, 8), (None, 20.0), (5.0, 7.0))
    edm, vp = ([point for point in points if point["design"] == name] for name in ("edm", "vp"))
    assert len(edm) == 2 * 2 * 2 * 2
    assert len(vp) == 2 * 2, "VP solves by Euler's steps anyway, and has no rho"
    assert {point["solver"] for point in edm} == {"heun", "euler"}
    assert {point["sigma_max"] for point in edm} == {80.0, 20.0}
    assert max(point["sigma_max"] for point in vp) == pytest.approx(152.167, abs=1e-3)
    assert {point["rho"] for point in vp} == {None}


@pytest.mark.parametrize("wrong", [{"design": ["ddim"]}, {"solver": ["rk4"]}])
def test_unknown_words_are_refused_with_those_that_exist(wrong):
    with pytest.raises(ValueError, match="it must be one of"):
        sweep_points(**wrong)


def test_rows_hold_what_the_sampler_gives(tmp_path):
    denoiser, judge = Gaussian(), Spread()
    points = sweep_points(num_steps=(3, 6), solver=("heun", "euler"))
    rows = sweep(denoiser, judge, points, tmp_path / "x.csv", seeds=2, progress=False)
    assert len(rows) == judge.calls == 8
    assert [row["nfe"] for row in rows[:4]] == [5, 11, 3, 6]
    assert [row["seed"] for row in rows] == [0] * 4 + [1] * 4

    latents = SeededNoise(range(8, 16)).latents((1, 4, 4))
    by_hand = edm_sampler(denoiser, latents, num_steps=3).clamp(-1, 1).std().item() / 0.5
    assert rows[4]["distance_ratio"] == pytest.approx(by_hand, abs=0.01)


def test_every_setting_reaches_the_sampler(tmp_path):
    settings = {"solver": "euler", "num_steps": 5, "sigma_max": 9.0, "rho": 3.0, "S_churn": 4.0}
    changed = {}
    for name, value in {**settings, "design": "vp", "seed": 0}.items():
        points = sweep_points(**({} if name == "seed" else {name: [value]}))
        (row,) = sweep(Gaussian(), Spread(), points, tmp_path / f"{name}.csv", seeds=1, progress=False)
        changed[name] = row["distance_ratio"]
    assert len(set(changed.values())) == len(changed), "two settings gave the same samples"

    points = sweep_points(**{name: [value] for name, value in settings.items()})
    (row,) = sweep(Gaussian(), Spread(), points, tmp_path / "all.csv", seeds=1, progress=False)
    noise = SeededNoise(range(8))
    samples = DESIGNS["edm"].sample(Gaussian(), noise.latents((1, 4, 4)), randn_like=noise.randn_like, **settings)
    assert row["distance_ratio"] == pytest.approx(samples.clamp(-1, 1).std().item() / 0.5, abs=0.01)
    assert row["nfe"] == 5


def test_network_evaluations_are_those_that_a_sample_costs(tmp_path):
    class Counting(Gaussian):
        calls = 0

        def forward(self, x, sigma):
            Counting.calls += 1
            return super().forward(x, sigma)

    for point in sweep_points(design=DESIGNS, solver=("heun", "euler"), num_steps=(1, 4)):
        Counting.calls = 0
        path = tmp_path / "_".join(map(str, (point["design"], point["solver"], f"{point['num_steps']}.csv")))
        (row,) = sweep(Counting(), Spread(), [point], path, seeds=1, batch_size=8, progress=False)
        assert row["nfe"] == Counting.calls, point


def test_a_row_that_was_cut_off_is_measured_again(tmp_path):
    path, points, judge = tmp_path / "x.csv", sweep_points(num_steps=(1, 2)), Spread()
    rows = sweep(Gaussian(), judge, points, path, seeds=1, progress=False)
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert len(read_sweep(path)) == 1
    again = sweep(Gaussian(), judge, points, path, seeds=1, progress=False)
    assert judge.calls == 3
    assert [row["distance_ratio"] for row in again] == pytest.approx([row["distance_ratio"] for row in rows])
    assert path.read_text().count("\n") == whole.count("\n")


def test_two_sweeps_into_one_file_both_keep_their_rows(tmp_path):
    path, points = tmp_path / "x.csv", sweep_points(num_steps=(1, 2))

    class Meanwhile(Spread):
        def __call__(self, pixels):
            if self.calls == 0:
                sweep(Gaussian(), Spread(), sweep_points(num_steps=(2, 3)), path, seeds=1, progress=False)
            return super().__call__(pixels)

    sweep(Gaussian(), Meanwhile(), points, path, seeds=1, progress=False)
    assert sorted(row["num_steps"] for row in read_sweep(path)) == [1, 2, 3], "each once, though 2 was measured twice"


@pytest.mark.parametrize("wrong", [{"rho": [7, -1]}, {"num_steps": [0]}, {"S_churn": [-1.0]}, {"sigma_max": [0.0]}])
def test_numbers_that_no_sampler_takes_are_refused_before_anything_is_measured(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sweep_points(**wrong)


def test_a_stopped_sweep_goes_on_and_measures_nothing_twice(tmp_path, monkeypatch):
    path, points, judge = tmp_path / "x.csv", sweep_points(num_steps=(1, 2, 3)), Spread()

    def stop(self, pixels):
        if self.calls == 2:
            raise KeyboardInterrupt
        return honest(self, pixels)

    honest = Spread.__call__
    with monkeypatch.context() as patch:
        patch.setattr(Spread, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(Gaussian(), judge, points, path, seeds=1, progress=False)
    assert len(read_sweep(path)) == 2
    rows = sweep(Gaussian(), judge, points, path, seeds=1, progress=False)
    assert judge.calls == 3
    straight = sweep(Gaussian(), Spread(), points, tmp_path / "y.csv", seeds=1, progress=False)
    for row, other in zip(rows, straight, strict=True):
        assert row["distance_ratio"] == pytest.approx(other["distance_ratio"], rel=1e-9)

    sweep(Gaussian(), judge, sweep_points(num_steps=(3, 4)), path, seeds=1, progress=False)
    assert judge.calls == 4, "only 4 steps are new"
    sweep(Gaussian(0.4), judge, sweep_points(num_steps=(3,)), path, seeds=1, progress=False)
    assert judge.calls == 5, "other weights are measured anew"
    assert len(read_sweep(path)) == 5


def test_the_file_is_a_tidy_table(tmp_path):
    sweep(Gaussian(), Spread(), sweep_points(design=("vp",)), tmp_path / "x.csv", seeds=1, progress=False)
    with open(tmp_path / "x.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == (*sweeps.KEY, *sweeps.MEASURED)
    assert (row["design"], row["solver"], row["num_steps"], row["rho"], row["nfe"]) == ("vp", "euler", "18", "", "18")


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "\x00\x01", "weights\n1\n", f"{sweeps.HEADINGS}a,8\n", f"{sweeps.HEADINGS}{'1,' * 15}1\n"],
)
def test_another_file_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(LessonError, match="holds no sweep"):
        sweep(Gaussian(), Spread(), sweep_points(), path, progress=False)
    assert path.read_text() == text


def test_the_picture_can_t_take_the_place_of_the_figures(tmp_path):
    with pytest.raises(LessonError, match=r"kept in a .csv file, with its picture beside it; .*x.png is none"):
        sweep(Gaussian(), Spread(), sweep_points(), tmp_path / "x.png", progress=False)


def test_the_command_measures_goes_on_and_says_what_is_wrong_first(run, tmp_path, monkeypatch, make_denoiser):
    judge, path = Spread(), tmp_path / "x.csv"
    monkeypatch.setattr(evaluation, "Judge", lambda count, device: judge)
    settings = ("--num-samples", 8, "--seeds", 2, "--out", path, "--device", "cpu")
    code, text, error = run("sweep", "--num-steps", "1,2", "--design", "edm,vp", *settings)
    assert code == 0, error
    assert judge.calls == 8
    assert text.count("±") == 8
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert run("sweep", "--num-steps", "2", "--design", "vp", *settings)[0] == 0
    assert judge.calls == 8, "the file has all that"
    for words, *wrong in [
        ("rho is -1.0", "--rho", "7,-1"),
        ("seeds is 0", "--seeds", 0),
        ("x.png is none", "--out", tmp_path / "x.png"),
    ]:
        assert words in run("sweep", *settings, *wrong)[2]
    assert judge.calls == 8


def rows_of(ratios, **settings):
    point = {"weights": "w", "num_samples": 8, "design": "edm", "solver": "heun", "sigma_max": 80.0, "rho": 7.0}
    point |= {"S_churn": 0.0, "num_steps": 18, **settings}
    nfe = 2 * point["num_steps"] - 1
    return [
        {**point, "seed": seed, "nfe": nfe, "distance_ratio": r, "recognised": 0.5} for seed, r in enumerate(ratios)
    ]


def test_the_table_gives_mean_and_spread_of_the_seeds():
    text = sweep_table(rows_of([2.0, 4.0], num_steps=4) + rows_of([1.0, 1.5], num_steps=8))
    assert [line.split() for line in text.splitlines()] == [
        ["num_steps", "NFE", "distance", "ratio", "recognised"],
        ["4", "7", "3.00", "±", "1.00", "50.0", "±", "0.0", "%"],
        ["8", "15", "1.25", "±", "0.25", "50.0", "±", "0.0", "%"],
    ]


def test_the_picture_has_a_line_for_each_setting_but_the_x_axis():
    rows = [
        row
        for steps in (8, 4)
        for rho in (3.0, 7.0)
        for row in rows_of([rho + steps, rho - steps], num_steps=steps, rho=rho)
    ]
    x, lines = sweep_lines(rows)
    assert x == "nfe"
    assert lines == {"rho 3": ((7, 15), ([7.0, -1.0], [11.0, -5.0])), "rho 7": ((7, 15), ([11.0, 3.0], [15.0, -1.0]))}
    x, lines = sweep_lines(rows_of([1.0], rho=7.0) + rows_of([2.0], design="vp", sigma_max=152.1669703, rho=None))
    assert (x, list(lines)) == ("sigma_max", ["edm, rho 7", "vp, rho –"])
    x, lines = sweep_lines(rows_of([1.0], rho=3.0) + rows_of([2.0], rho=5.0))
    assert (x, lines) == ("rho", {"": ((3.0, 5.0), ([1.0], [2.0]))})


def test_one_point_makes_a_table_and_a_picture():
    rows = rows_of([1.0, 2.0])
    assert "1.50 ± 0.50" in sweep_table(rows)
    assert sweep_lines(rows) == ("num_steps", {"": ((18,), ([1.0, 2.0],))})
