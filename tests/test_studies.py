"""Studies: what is trained, that a stopped one goes on without training twice, and what the table says."""

import csv
from dataclasses import replace

import pytest

from edm_lesson import LessonError
from edm_lesson.config import load_config
from edm_lesson.data import data_folder
from edm_lesson.designs import build_denoiser, build_loss
from edm_lesson.evaluation import study as studies
from edm_lesson.evaluation.study import STUDIES, Study, load_study, results_of, run_study, study_table
from edm_lesson.evaluation.table import MEASURES, TableFile
from edm_lesson.losses import EDMLoss, VPLoss
from edm_lesson.preconditioning import EDMPrecond, VPPrecond
from edm_lesson.training import trainer as trainers


class Level:
    """A judge that says how bright the samples are."""

    calls = 0

    def __init__(self, count):
        self.count = count

    def __call__(self, pixels):
        Level.calls += 1
        ratio = pixels.float().mean().item()
        return {"distance_ratio": ratio, "recognised": 0.5, "class_shares": [0.1] * 10, "nearest": 1.0, "copies": 0.0}


TINY = Study(
    "tiny",
    "smoke",
    64,
    {
        "A": ("as it is", ["training.precision=float32"]),
        "B 2": ("slower", ["training.precision=float32", "training.learning_rate=1e-3"]),
    },
)


def go(folder, study=TINY, rows=TINY.rows, **settings):
    settings = {"num_samples": 4, "num_steps": 2, **settings}
    study = replace(study, rows={row: study.rows[row] for row in rows})
    return run_study(study, Level, folder, device="cpu", **settings)


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_of_the_studies_is_a_training_that_can_start(name):
    study = load_study(name)
    configs = [study.settings(row, seed=3) for row in study.rows]
    assert len({str(config) for config in configs}) == len(configs), "two rows are the same"
    for config in configs:
        assert (config.training.images, config.training.seed) == (study.images, 3)
        build_denoiser(config)
        build_loss(config)


def test_the_ablation_goes_from_the_vp_column_to_the_lesson_one_change_at_a_time():
    study = load_study("ablation", images=1000)
    assert list(study.rows) == list("ABCDEF")
    configs = {row: study.settings(row, 0) for row in study.rows}
    kinds = [(type(build_denoiser(config)), type(build_loss(config))) for config in configs.values()]
    vp, half, edm = (VPPrecond, VPLoss), (EDMPrecond, VPLoss), (EDMPrecond, EDMLoss)
    assert kinds == [vp, vp, vp, half, edm, edm]
    lesson = load_config("lesson")
    for section in ("data", "design", "network", "sigma_data", "loss", "augment"):
        assert getattr(configs["E"], section) == getattr(lesson, section), "E is the course's model"
    assert configs["F"].augment.p == 0.12
    assert configs["F"].augment.xflip == configs["F"].augment.yflip == 0
    assert {config.training.images for config in configs.values()} == {1000}, "all have the same budget"


def test_choices_change_one_thing_of_the_lesson_each():
    study, lesson = load_study("choices"), load_config("lesson")
    for row in study.rows:
        config = study.settings(row, 0)
        same = [getattr(config, name) == getattr(lesson, name) for name in ("data", "sigma_data", "loss", "network")]
        assert same.count(False) == {"lesson": 0, "padded": 2}.get(row, 1), row


def test_each_row_is_trained_and_measured_once_a_seed(tmp_path):
    Level.calls = 0
    results = go(tmp_path, seeds=2)
    assert [(found["row"], found["seed"]) for found in results] == [("A", 0), ("A", 1), ("B 2", 0), ("B 2", 1)]
    assert len({found["distance_ratio"] for found in results}) == 4
    assert {found["images"] for found in results} == {64}
    assert {found["nfe"] for found in results} == {3}
    assert go(tmp_path, seeds=2) == results
    assert results_of(TINY, tmp_path, num_samples=4, num_steps=2) == results
    assert Level.calls == 4, "nothing is measured twice"
    with open(tmp_path / "tiny.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"study", "row", "seed", "images", "parameters", "num_samples", "nfe", *MEASURES[:4]} <= set(rows[0])
    ratios = sorted(found["distance_ratio"] for found in results)
    assert sorted(float(row["distance_ratio"]) for row in rows) == pytest.approx(ratios)


def test_each_seed_is_trained_and_sampled_with_its_own(tmp_path, monkeypatch):
    sampled, measure = [], studies.evaluate
    monkeypatch.setattr(
        studies,
        "evaluate",
        lambda denoiser, judge, seed, **settings: (
            sampled.append((denoiser.config.training.seed, seed)) or measure(denoiser, judge, seed, **settings)
        ),
    )
    go(tmp_path, rows=["A"], seeds=2)
    assert sampled == [(0, 0), (1, 1)]


def test_the_file_is_written_after_every_run_and_keeps_all_seeds(tmp_path, monkeypatch):
    written, write = [], TableFile.add

    def look(file, row):
        write(file, row)
        written.append(len(file.path.read_text().splitlines()) - 1)

    monkeypatch.setattr(TableFile, "add", look)
    go(tmp_path, seeds=2)
    assert written == [1, 2, 3, 4]
    go(tmp_path, rows=["A"], seeds=1)
    assert len(results_of(TINY, tmp_path, num_samples=4, num_steps=2)) == 4, "what other seeds and rows have is kept"
    assert [path.name for path in tmp_path.glob("[!.]*") if path.is_file()] == ["tiny.csv"]


def test_a_stopped_study_goes_on_and_ends_as_one_that_was_not(tmp_path, monkeypatch):
    straight, begun = go(tmp_path / "straight"), []

    class Stopping(trainers.Trainer):
        def train(self, until=None, **settings):
            super().train(until=32, **settings)
            raise KeyboardInterrupt

    class Watched(trainers.Trainer):
        def train(self, **settings):
            begun.append(self.images_seen)
            super().train(**settings)

    with monkeypatch.context() as patch:
        patch.setattr(trainers, "Trainer", Stopping)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "stopped")
    assert results_of(TINY, tmp_path / "stopped", 1, 4, 2) == []
    assert "missing" in study_table(TINY, [])
    monkeypatch.setattr(trainers, "Trainer", Watched)
    again = go(tmp_path / "stopped")
    assert begun == [32, 0], "row A goes on, row B 2 begins"
    for found, expected in zip(again, straight, strict=True):
        assert found["distance_ratio"] == expected["distance_ratio"]


def test_rows_can_be_chosen_and_the_table_says_what_is_missing(tmp_path):
    results = go(tmp_path, rows=["B 2"])
    assert [found["row"] for found in results] == ["B 2"]
    lines = study_table(TINY, results, seeds=2).splitlines()
    assert "missing" in lines[1]
    assert "0/2" in lines[1]
    assert "1/2" in lines[2]
    assert study_table(load_study("ablation", only=["D", "A"]), []).count("missing") == 2
    with pytest.raises(ValueError, match="row is 'G'; it must be one of A, B, C"):
        load_study("ablation", only=["A", "G"])


def test_results_with_other_settings_are_not_mixed_in(tmp_path, monkeypatch):
    (before,) = go(tmp_path, rows=["A"])
    with pytest.raises(LessonError, match=r"other settings than row 'A' has with 128 images"):
        go(tmp_path, study=Study("tiny", "smoke", 128, TINY.rows))
    assert not (tmp_path / "B_2").exists(), "it is said before the other row is trained"
    trained = (tmp_path / "A" / "seed0" / "metrics.jsonl").read_bytes()
    for changed in ({"num_samples": 8}, {"num_steps": 3}):
        (found,) = go(tmp_path, rows=["A"], **changed)
        assert found.items() >= changed.items()
    assert (tmp_path / "A" / "seed0" / "metrics.jsonl").read_bytes() == trained, "measured anew, without training"
    assert results_of(TINY, tmp_path, 1, 4, 2) == [before]


def test_a_study_of_the_version_before_is_gone_on_with(tmp_path):
    go(tmp_path)
    path = tmp_path / "tiny.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    old = ["study", "row", "seed", "images", "parameters", "num_samples", "num_steps", "nfe"]
    old += ["distance_ratio", "recognised", "nearest", "copies", "seconds"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, old, lineterminator="\n")
        writer.writeheader()
        writer.writerow({name: rows[0][name] for name in old})
    Level.calls = 0
    assert [found["row"] for found in go(tmp_path)] == ["A", "B 2"]
    assert Level.calls == 1


@pytest.mark.parametrize("name", STUDIES)
def test_the_results_that_come_with_the_course_are_read(name):
    study = load_study(name)
    results = results_of(study, data_folder() / "results")
    assert len(results) >= 3 * len(study.rows)
    assert "missing" not in study_table(study, results, 3)


def test_a_damaged_table_is_told_and_kept(tmp_path):
    go(tmp_path, rows=["A"])
    path = tmp_path / "tiny.csv"
    path.write_text(path.read_text() + "tiny,A,1\n")
    text = path.read_text()
    with pytest.raises(LessonError, match=r"tiny.csv holds no such measurements \(line 3 has too few"):
        go(tmp_path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": 10**9}, "seeds is 1000000000"),
        ({"num_samples": 1}, "num_samples is 1"),
        ({"num_samples": 10_001}, "num_samples is 10001"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"study": Study("tiny", "smoke", 64, {"A": ("", ["data.name=my_cats"])}), "rows": "A"}, "trained on my_cats"),
    ],
)
def test_numbers_without_sense_are_refused_before_training(tmp_path, settings, words):
    with pytest.raises(ValueError, match=words):
        go(tmp_path / "x", **settings)
    assert not (tmp_path / "x").exists()


def test_the_table_gives_mean_and_spread_over_the_seeds():
    results = [
        {"row": "A", "seed": seed, "distance_ratio": ratio, "recognised": 0.5} for seed, ratio in enumerate([2.0, 4.0])
    ]
    line = study_table(TINY, results, 2).splitlines()[1]
    assert line.split() == ["A", "3.00", "±", "1.00", "50.0", "±", "0.0", "%", "2/2", "as", "it", "is"]


def test_the_command_line_says_what_is_missing_without_training(run, tmp_path):
    code, text, error = run("study", "ablation", "--status", "--out", tmp_path / "x")
    assert code == 0, error
    assert text.count("missing") == 6
    assert not (tmp_path / "x").exists()
    assert "study is 'ablations'; it must be one of ablation, choices" in run("study", "ablations")[2]
    assert "row is 'Z'; it must be one of A, B" in run("study", "ablation", "--only", "Z", "--status")[2]
    code, _, error = run("study", "ablation", "--seeds", "-1", "--status")
    assert code == 2
    assert "--seeds" in error
