"""Sweeps: what is measured, that a stopped one goes on without measuring twice, and what the table and picture say."""

import csv
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from edm_lesson import LessonError, evaluation
from edm_lesson.config import load_config
from edm_lesson.data import data_folder
from edm_lesson.designs import DESIGNS
from edm_lesson.evaluation.sweep import KEY, read_sweep, sweep, sweep_lines, sweep_points, sweep_table
from edm_lesson.evaluation.table import MEASURES, TableFile
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
        self.real = {"distance_ratio": 1.0, "recognised": 0.975, "nearest": 5.0, "copies": 0.01}

    def __call__(self, pixels):
        self.calls += 1
        ratio = (pixels.float() / 127.5 - 1).std().item() / 0.5
        return {"distance_ratio": ratio, "recognised": 0.5, "nearest": 1.0, "copies": 0.0}


def go(denoiser, judge, points, path, **settings):
    """The rows of a sweep, real digits left out, that were measured or are in the file `path`."""
    settings = {"seeds": 1, "num_samples": judge.count, **settings}
    *rows, real = sweep(denoiser, lambda count: judge, points, path, **settings)
    assert (real["weights"], real["distance_ratio"]) == ("real", 1)
    return rows


def samples_in(path):
    """The rows of samples in a file."""
    return [row for row in read_sweep(path) if row["weights"] != "real"]


def test_points_are_all_combinations_with_what_each_design_leaves_open():
    points = sweep_points(
        design=("edm", "vp"), solver=(None, "euler"), num_steps=(4, 8), sigma_max=(None, 20.0), rho=(5.0, 7.0)
    )
    edm, vp = ([point for point in points if point["design"] == name] for name in ("edm", "vp"))
    assert len(edm) == 2 * 2 * 2 * 2
    assert len(vp) == 2 * 2, "VP solves by Euler's steps anyway, and has no rho"
    assert {point["solver"] for point in edm} == {"heun", "euler"}
    assert {point["sigma_max"] for point in edm} == {80.0, 20.0}
    assert max(point["sigma_max"] for point in vp) == pytest.approx(152.167, abs=1e-3)
    assert {point["rho"] for point in vp} == {None}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"design": ["ddim"]}, "sampler is 'ddim'; it must be one of vp, ve"),
        ({"solver": ["rk4"]}, "solver is 'rk4'; it must be one of"),
        ({"S_churn": [-1.0]}, "S_churn is -1"),
        ({"design": ["dpmpp_2m"], "S_churn": [10.0]}, "dpmpp_2m takes neither S_churn nor another solver"),
        ({"design": ["dpmpp_2m"], "solver": ["heun"]}, "dpmpp_2m takes neither S_churn nor another solver"),
    ],
)
def test_what_no_sampler_takes_is_refused_before_anything_is_measured(wrong, message):
    with pytest.raises(ValueError, match=message):
        sweep_points(**wrong)


def test_rows_hold_what_the_sampler_gives(tmp_path):
    denoiser, judge = Gaussian(), Spread()
    points = sweep_points(num_steps=(3, 6), solver=("heun", "euler"))
    rows = go(denoiser, judge, points, tmp_path / "x.csv", seeds=2)
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
        (row,) = go(Gaussian(), Spread(), points, tmp_path / f"{name}.csv")
        changed[name] = row["distance_ratio"]
    assert len(set(changed.values())) == len(changed), "two settings gave the same samples"

    points = sweep_points(**{name: [value] for name, value in settings.items()})
    (row,) = go(Gaussian(), Spread(), points, tmp_path / "all.csv")
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

    multistep = sweep_points(design=["dpmpp_2m"], num_steps=(1, 4))
    for point in [*sweep_points(design=DESIGNS, solver=("heun", "euler"), num_steps=(1, 4)), *multistep]:
        Counting.calls = 0
        path = tmp_path / "_".join(map(str, (point["design"], point["solver"], f"{point['num_steps']}.csv")))
        (row,) = go(Counting(), Spread(), [point], path, batch_size=8)
        assert row["nfe"] == Counting.calls, point


def test_a_row_that_was_cut_off_is_measured_again(tmp_path):
    path, points, judge = tmp_path / "x.csv", sweep_points(num_steps=(1, 2)), Spread()
    rows = go(Gaussian(), judge, points, path)
    whole = path.read_text()
    path.write_text(whole[: whole.rindex("real,") - 9])
    with pytest.warns(UserWarning, match="The last line of .*x.csv is cut off and left out"):
        assert len(samples_in(path)) == 1
    with pytest.warns(UserWarning, match="cut off"):
        again = go(Gaussian(), judge, points, path)
    assert judge.calls == 3
    assert [row["distance_ratio"] for row in again] == pytest.approx([row["distance_ratio"] for row in rows])
    assert path.read_text().count("\n") == whole.count("\n")


def test_two_sweeps_into_one_file_both_keep_their_rows(tmp_path):
    path, points = tmp_path / "x.csv", sweep_points(num_steps=(1, 2))

    class Meanwhile(Spread):
        def __call__(self, pixels):
            if self.calls == 0:
                go(Gaussian(), Spread(), sweep_points(num_steps=(2, 3)), path)
            return super().__call__(pixels)

    judge = Meanwhile()
    go(Gaussian(), judge, points, path)
    assert sorted(row["num_steps"] for row in samples_in(path)) == [1, 2, 3]
    assert judge.calls == 1, "2 steps were measured by the other"


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
            go(Gaussian(), judge, points, path)
    assert len(samples_in(path)) == 2
    rows = go(Gaussian(), judge, points, path)
    assert judge.calls == 3
    straight = go(Gaussian(), Spread(), points, tmp_path / "y.csv")
    for row, other in zip(rows, straight, strict=True):
        assert row["distance_ratio"] == pytest.approx(other["distance_ratio"], rel=1e-9)

    go(Gaussian(), judge, sweep_points(num_steps=(3, 4)), path)
    assert judge.calls == 4, "only 4 steps are new"
    go(Gaussian(0.4), judge, sweep_points(num_steps=(3,)), path)
    assert judge.calls == 5, "other weights are measured anew"
    assert len(samples_in(path)) == 5


def test_the_file_is_a_tidy_table(tmp_path):
    go(Gaussian(), Spread(), sweep_points(design=("vp",)), tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        row, real = csv.DictReader(file)
    assert tuple(row) == (*KEY, "checkpoint", *MEASURES[:4], "nfe", "seconds")
    assert (real["weights"], real["num_samples"], real["solver"], real["distance_ratio"]) == ("real", "8", "", "1")
    assert (row["design"], row["solver"], row["num_steps"], row["rho"], row["nfe"]) == ("vp", "euler", "18", "", "18")


OLD_HEADINGS = (
    "weights,num_samples,design,solver,num_steps,sigma_max,rho,S_churn,seed,"
    "nfe,distance_ratio,recognised,nearest,copies,seconds\n"
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("w,8,edm,heun,4,80,7,0,1", "w,8,edm,heun,4,80,7,0,0", "line 3 contradicts one above"),
        (",7,2,0.5", ",7,nan,0.5", "distance_ratio is nan"),
        (",7,2,0.5", ",7,-2,0.5", "distance_ratio is -2"),
        (",7,2,0.5", ",7,2,50", "recognised is 50"),
        (",7,2,0.5", ",7,two,0.5", "could not convert string to float: 'two'"),
        (",7,2,0.5", ",7,,0.5", "line 2 has too few or too many values"),
        (",7,2,0.5\nw,8,edm", "w,8,edm", "line 2 has too few or too many values"),
        ("\nw,8,edm,heun,4,80,7,0,1", "\nweights,num_samples\nw,8,edm,heun,4,80,7,0,1", "line 3 has too few"),
        (",nfe,", ",mfe,", "its columns are"),
    ],
)
def test_a_file_that_was_altered_is_refused(tmp_path, old, new, words):
    path = tmp_path / "x.csv"
    path.write_text(",".join(KEY) + ",nfe,distance_ratio,recognised\n" + "".join(
        f"w,8,edm,heun,4,80,7,0,{seed},7,{ratio},0.5\n" for seed, ratio in enumerate([2, 3])
    ))  # fmt: skip
    assert [row["distance_ratio"] for row in read_sweep(path)] == [2, 3]
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(LessonError, match=f"holds no such measurements .*{words}"):
        read_sweep(path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "large.csv").touch()
    os.truncate(tmp_path / "large.csv", 10**9)
    for name in ("pipe", "large"):
        with pytest.raises(LessonError, match="it is no file of at most 100 MB"):
            read_sweep(tmp_path / f"{name}.csv")


def test_the_name_of_a_model_may_be_anything(tmp_path):
    for name in ("a\nb", "\u2028", "\udcff", 'a,"b'):
        (row,) = go(Gaussian(), Spread(), sweep_points(num_steps=(1,)), tmp_path / "x.csv", checkpoint=name)
        assert row["num_steps"] == 1
        (tmp_path / "x.csv").unlink()


def test_models_of_what_is_no_digit_are_refused_unless_asked_for(tmp_path):
    denoiser, judge, config = Gaussian(), Spread(), load_config("smoke")
    for data, words in [({"name": "/my/cats"}, "was trained on /my/cats, but only digits like MNIST's"),
                        ({"name": "mnist", "img_resolution": 27}, "are .1, 1, 27, 27.; only digits"),
                        ({"name": "mnist", "img_channels": 3}, "are .1, 3, 28, 28.; only digits")]:  # fmt: skip
        denoiser.config = replace(config, data=replace(config.data, **data))
        with pytest.raises(ValueError, match=words):
            go(denoiser, judge, sweep_points(), tmp_path / "x.csv")
        with pytest.raises(ValueError, match=words):
            evaluation.evaluate(denoiser, judge)
    denoiser.config = replace(config, data=replace(config.data, name="/my/cats"))
    assert len(go(denoiser, judge, sweep_points(num_steps=(1,)), tmp_path / "x.csv", own_digits=True)) == 1
    denoiser.config = config
    assert len(go(denoiser, judge, sweep_points(num_steps=(2,)), tmp_path / "x.csv")) == 1


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "\x00\x01", "weights\n1\n", f"{OLD_HEADINGS}a,8\n", f"{OLD_HEADINGS}{'1,' * 15}1\n"],
)
def test_another_file_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(LessonError, match="holds no such measurements"):
        go(Gaussian(), Spread(), sweep_points(), path)
    assert path.read_text() == text


def test_a_picture_can_t_take_the_place_of_the_figures(tmp_path):
    with pytest.raises(LessonError, match=r"kept in a .csv file; .*x.png is none"):
        go(Gaussian(), Spread(), sweep_points(), tmp_path / "x.png")


def test_files_of_the_version_before_are_read_and_gone_on_with(tmp_path):
    path = tmp_path / "x.csv"
    (row,) = go(Gaussian(), Spread(), sweep_points(num_steps=(1,)), path)
    cells = ",".join(f"{row[name]:.10g}" if name not in ("weights", "design", "solver") else row[name] for name in
                     OLD_HEADINGS.strip().split(","))  # fmt: skip
    path.write_text(f"{OLD_HEADINGS}{cells}\n")
    judge = Spread()
    assert [row["num_steps"] for row in go(Gaussian(), judge, sweep_points(num_steps=(1, 2)), path)] == [1, 2]
    assert judge.calls == 1, "one step is in the file"
    old = read_sweep(path)[0]
    assert (old["checkpoint"], old.get("as_asked")) == ("", None)
    assert old["distance_ratio"] == pytest.approx(row["distance_ratio"])

    shipped = read_sweep(data_folder() / "results" / "sweep.csv")
    assert len(shipped) > 50
    assert all(row["num_samples"] == 2000 and row["distance_ratio"] > 1 for row in shipped)


def test_rows_that_are_added_at_the_same_time_are_all_kept(tmp_path):
    def add(number):
        TableFile(tmp_path / "x.csv", KEY).add({"weights": "w", "seed": number, "nfe": 1, "distance_ratio": 1.0})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert sorted(row["seed"] for row in read_sweep(tmp_path / "x.csv")) == list(range(24))


def test_the_seconds_of_a_row_are_its_own(tmp_path):
    def make_judge(count):
        time.sleep(0.5)
        return Spread()

    row, _ = sweep(Gaussian(), make_judge, sweep_points(num_steps=(1,)), tmp_path / "x.csv", seeds=1, num_samples=8)
    assert row["seconds"] < 0.5


def test_models_with_the_same_name_share_a_file_and_no_row(tmp_path):
    path, points, judge = tmp_path / "x.csv", sweep_points(num_steps=(1,)), Spread()
    go(Gaussian(0.5), judge, points, path, checkpoint="lesson")
    go(Gaussian(0.4), judge, points, path, checkpoint="runs/lesson")
    assert [row["checkpoint"] for row in samples_in(path)] == ["lesson", "runs/lesson"]


def test_the_command_measures_goes_on_and_says_what_is_wrong_first(run, tmp_path, monkeypatch):
    judge, path = Spread(), tmp_path / "x.csv"
    monkeypatch.setattr(evaluation, "Judge", lambda count, device: judge)
    settings = ("--num-samples", 8, "--seeds", 2, "--out", path, "--device", "cpu")
    code, text, error = run(
        "evaluate", "--num-steps", "1,2", "--sampler", "edm,vp", *settings, "--plot", tmp_path / "p" / "x.png"
    )
    assert code == 0, error
    assert judge.calls == 8
    assert text.count("±") == 4 * len(MEASURES[:4])
    assert [line.split()[0] for line in text.splitlines()[:6]] == ["design", "edm", "edm", "vp", "vp", "real"]
    assert (tmp_path / "p" / "x.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(evaluation, "Judge", None)  # the file has all that, so nobody is asked to judge
    assert run("evaluate", "--num-steps", "2", "--sampler", "vp", *settings)[0] == 0
    for words, *wrong in [
        ("rho is -1.0", "--rho", "7,-1"),
        ("sampler is 'ddim'; it must be one of", "--sampler", "edm,ddim"),
        ("solver is 'rk4'; it must be one of", "--solver", "rk4"),
        ("num_steps is 0", "--num-steps", "4,0"),
        ("seeds is 0", "--seeds", 0),
        ("x.png is none", "--out", tmp_path / "x.png"),
        ("--plot is x.jpeg; it must end in", "--plot", "x.jpeg"),
    ]:
        assert words in run("evaluate", *settings, *wrong)[2]


def rows_of(ratios, **settings):
    point = {"weights": "w", "num_samples": 8, "design": "edm", "solver": "heun", "sigma_max": 80.0, "rho": 7.0}
    point |= {"S_churn": 0.0, "num_steps": 18, **settings}
    nfe = 2 * point["num_steps"] - 1
    return [
        {**point, "seed": seed, "nfe": nfe, "distance_ratio": r, "recognised": 0.5, "as_asked": None}
        for seed, r in enumerate(ratios)
    ]


def test_the_table_gives_mean_and_spread_of_the_seeds():
    real = {"weights": "real", "num_samples": 8, "distance_ratio": 1.0, "recognised": 0.975, "as_asked": 0.99}
    text = sweep_table(rows_of([2.0, 4.0], num_steps=4) + rows_of([1.0, 1.5], num_steps=8) + [real])
    assert [line.split() for line in text.splitlines()] == [
        ["num_steps", "NFE", "distance", "ratio", "recognised"],
        ["4", "7", "3.00", "±", "1.00", "50.0", "±", "0.0", "%"],
        ["8", "15", "1.25", "±", "0.25", "50.0", "±", "0.0", "%"],
        ["real", "1.00", "97.5", "%"],
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
