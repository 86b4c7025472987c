"""The command line does what it says, and tells users what to mend in one sentence."""

import io
import itertools
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edm_lesson import LessonError, __version__, cli, data, evaluation, samplers
from edm_lesson.config import load_config
from edm_lesson.data import Images, sources
from edm_lesson.evaluation import judge, study
from edm_lesson.evaluation.sweep import read_sweep
from edm_lesson.training import trainer

SETTINGS = ["training.images=320", "training.log_every=160", "training.sample_every=0"]
TINY = ["--config", "smoke", "--device", "cpu", *[part for setting in SETTINGS for part in ("--set", setting)]]


def test_samples_are_uint8_images_and_do_not_depend_on_the_batch_size(run, tmp_path):
    common = ["sample", "--device", "cpu", "--num-steps", 3, "--S-churn", 2, "--num-samples", 5]
    for batch_size in (5, 2):
        code, _, error = run(*common, "--batch-size", batch_size, "--out", tmp_path / f"{batch_size}.npz")
        assert code == 0, error
    together, apart = (np.load(tmp_path / f"{batch_size}.npz")["images"].astype(int) for batch_size in (5, 2))
    assert together.shape == (5, 1, 28, 28)
    assert np.load(tmp_path / "5.npz")["images"].dtype == np.uint8
    assert abs(together - apart).max() <= 1, "rounding may differ with the batch size, digits may not"
    assert run(*common, "--seed", 1, "--out", tmp_path / "other.npz")[0] == 0
    other = np.load(tmp_path / "other.npz")["images"].astype(int)
    assert all(abs(image - another).max() > 1 for image in together for another in other), "another seed, other images"


def test_the_png_is_a_grid_of_all_images(run, tmp_path):
    code, out, _ = run(
        "sample", "--device", "cpu", "--num-steps", 1, "--num-samples", 9, "--out", tmp_path / "digits.png"
    )
    assert code == 0
    assert "9 images" in out
    assert Image.open(tmp_path / "digits.png").size == (3 * (8 * 29 + 1), 3 * (2 * 29 + 1))


def test_a_film_shows_every_second_step_and_nothing_else_needs_pictures_of_ours(run, tmp_path, monkeypatch):
    common = ["sample", "--device", "cpu", "--num-steps", 3, "--num-samples", 2, "--rho", 5, "--out"]
    assert run(*common, tmp_path / "film.png", "--film")[0] == 0
    width, height = Image.open(tmp_path / "film.png").size
    assert width > height, "σ = 80, the last level, and the images, side by side"
    monkeypatch.setitem(sys.modules, "edm_lesson.plots", None)  # importing it now fails
    assert run(*common, tmp_path / "grid.png")[0] == 0


@pytest.mark.parametrize("sampler", ["vp", "ve", "iddpm", "dpmpp_2m"])
def test_a_model_is_sampled_by_another_sampler_than_its_own(run, tmp_path, sampler):
    common = ["sample", "--device", "cpu", "--num-steps", 2, "--num-samples", 1, "--out"]
    for number, settings in enumerate([[], ["--sampler", sampler], ["--sampler", sampler, "--sigma-max", 20]]):
        assert run(*common, tmp_path / f"{number}.npz", *settings)[0] == 0
    images = [np.load(tmp_path / f"{number}.npz")["images"] for number in range(3)]
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(images, 2))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "digits.jpeg"], "digits.jpeg; it must end in .png or .npz"),
        (["--checkpoint", "nowhere.safetensors"], "There is no checkpoint nowhere.safetensors"),
        (["--labels", "0-9"], "this model has no classes"),
        (["--labels", "seven"], "--labels is 'seven'"),
        (["--labels", "²"], "--labels is '²'; write classes as"),
        (["--num-steps", "0"], "num_steps is 0"),
        (["--num-samples", "0"], "num_samples is 0"),
        (["--sigma-min", "90"], "sigma_min is 90.0"),
        (["--S-churn", "-1"], "S_churn is -1.0"),
        (["--sampler", "ddim"], "sampler is 'ddim'; it must be one of"),
        (["--sampler", "dpmpp_2m", "--S-churn", "10"], "dpmpp_2m takes neither S_churn nor another solver"),
        (["--sampler", "vp", "--rho", "5"], "--rho is 5.0, but the noise levels of vp have none"),
        (["--film"], "--film draws at most 16 images of one batch, in 1000 steps, as a .png, not 64"),
        (["--device", "toaster"], "toaster"),
    ],
)
def test_impossible_samples_are_refused_in_one_sentence(run, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    code, _, message = run("sample", "--device", "cpu", *arguments)
    assert code not in (0, None)
    assert expected in message
    assert "Traceback" not in message
    assert not list(tmp_path.iterdir()), "something was written all the same"


@pytest.mark.parametrize(
    ("text", "classes"), [("7", [7]), ("3,1,4", [3, 1, 4]), ("0-9", list(range(10))), ("2, 5-7", [2, 5, 6, 7])]
)
def test_labels_are_read_as_lists_and_ranges(text, classes):
    assert cli.parse_labels(text) == classes


def test_training_is_logged_refuses_to_overwrite_and_resumes(run, tmp_path):
    out = tmp_path / "run"
    code, text, error = run("train", *TINY, "--out", out)
    assert code == 0, error
    assert f"edm-lesson sample --checkpoint {out}" in text
    assert {path.name for path in out.glob("[!.]*")} == {
        "checkpoint.safetensors",
        "config.yaml",
        "denoiser.safetensors",
        "environment.json",
        "metrics.jsonl",
    }
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [160, 320]

    before = (out / "checkpoint.safetensors").read_bytes()
    code, said, error = run("train", *TINY, "--out", out)
    assert "holds a run already" in error
    assert not said, "the images were loaded first"
    assert (out / "checkpoint.safetensors").read_bytes() == before
    code, _, error = run("train", "--resume", "--device", "cpu", "--out", out)
    assert code == 0, error
    code, _, error = run("train", "--resume", "--out", out, "--set", "sigma_data=1")
    assert "is kept when it goes on; leave out --set." in error
    code, _, error = run("train", "--resume", "--out", out, "--config", "lesson")
    assert "is kept when it goes on; leave out --config." in error
    for checkpoint in (out, out / "denoiser.safetensors"):
        code, _, error = run(
            "sample", "--device", "cpu", "--num-steps", 1, "--checkpoint", checkpoint, "--out", tmp_path / "x.npz"
        )
        assert code == 0, error


def test_a_run_is_resumed_by_the_name_of_its_configuration_alone(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", *TINY)[0] == 0
    code, text, error = run("train", "--resume", "--device", "cpu", "--config", "smoke")
    assert code == 0, error
    assert "runs/smoke holds what it learned" in text
    assert "There is no checkpoint runs/lesson/" in run("train", "--resume")[2]


@pytest.mark.parametrize("option", ["--resume", "--previous"])
def test_going_on_with_nothing_is_refused(run, tmp_path, option):
    code, _, message = run("train", option, "--out", tmp_path / "run")
    assert code not in (0, None)
    assert "There is no checkpoint" in message
    assert not (tmp_path / "run").exists()


def test_own_colour_pictures_can_be_trained_on(run, tmp_path):
    pictures = tmp_path / "my pictures"
    for label in ("cats", "dogs"):
        (pictures / label).mkdir(parents=True)
        for number in range(4):
            noise = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8).numpy()
            Image.fromarray(noise).save(pictures / label / f"{number}.png")
    settings = ["data.img_resolution=32", "data.img_channels=3", "data.center=true"]
    code, text, error = run(
        "train",
        *TINY,
        "--data",
        pictures,
        *[part for s in settings for part in ("--set", s)],
        "--out",
        tmp_path / "run",
    )
    assert code == 0, error
    assert "8 images of (3, 32, 32); classes: 0 cats (4), 1 dogs (4); standard deviation 0." in text
    assert "2 classes are not used; to train with them add --set network.label_dim=2" in text
    code, _, error = run(
        "sample", "--device", "cpu", "--num-steps", 1, "--checkpoint", tmp_path / "run", "--out", tmp_path / "x.npz"
    )
    assert code == 0, error
    assert np.load(tmp_path / "x.npz")["images"].shape == (64, 3, 32, 32)
    code, _, error = run("evaluate", "--device", "cpu", "--checkpoint", tmp_path / "run", "--out", tmp_path / "x.csv")
    assert "The images are (1, 3, 32, 32); only digits" in error


@pytest.mark.parametrize(
    ("labels", "settings", "told"),
    [([0, 5], [], "2 classes are not used; to train with them add --set network.label_dim=2"),
     ([3, 3], [], None), ([0, 5], ["--set", "network.label_dim=2"], None)],
)  # fmt: skip
def test_classes_of_ones_own_pictures_are_offered_where_they_are_not_used(run, tmp_path, labels, settings, told):
    noise = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28), np.uint8)
    np.savez(tmp_path / "own.npz", images=noise, labels=np.array(labels))
    code, text, error = run("train", *TINY, "--data", tmp_path / "own.npz", *settings, "--out", tmp_path / "run")
    assert code == 0, error
    assert told in text if told else "are not used" not in text
    assert "are not used" not in run("train", "--resume", "--device", "cpu", "--out", tmp_path / "run")[1]


def test_more_classes_than_there_are_and_nearly_black_pictures_are_questioned(run, tmp_path):
    masks = np.random.default_rng(0).integers(0, 2, (4, 1, 28, 28), np.uint8)
    np.savez(tmp_path / "own.npz", images=masks, labels=np.array([3, 3, 5, 5]))
    arguments = ["train", *TINY, "--data", tmp_path / "own.npz", "--out", tmp_path / "run"]
    code, text, error = run(*arguments, "--set", "network.label_dim=6")
    assert code == 0, error
    assert "classes: 0 3 (2), 1 5 (2)" in text
    assert "network.label_dim is 6, but there are 2 classes: the others are never trained" in text
    assert "nearly of one shade" in text
    assert "consider --set sigma_data" not in text


def test_folders_of_any_name_are_taken_and_one_called_like_a_set_is_asked_about(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my 😀: [x]", "mnist", "${HOME}", "nul\udcff"):
        Path(name).mkdir()
        for number in range(3):
            Image.effect_noise((32, 32), 80).save(Path(name, f"{number}.png"))
    for number, name in enumerate(["my 😀: [x]", "mnist/", "./mnist"]):
        code, text, error = run("train", *TINY, "--data", name, "--out", f"run {number}")
        assert code == 0, error
        assert "3 images of (1, 28, 28)" in text
        assert load_config(f"run {number}/config.yaml").data.name == name
        assert run("train", "--resume", "--device", "cpu", "--out", f"run {number}")[0] == 0
    assert "write ./mnist, or --set data.name=mnist" in run("train", *TINY, "--data", "mnist", "--out", "no")[2]
    for name in ("${HOME}", "nul\udcff"):
        assert "rename that folder" in run("train", *TINY, "--data", name, "--out", "no")[2]
    assert not Path("no").exists()
    assert "60,000 images" in run("train", *TINY, "--set", "data.name=mnist", "--out", "digits")[1]


@pytest.mark.parametrize("shade", [0, 77])
def test_pictures_of_one_shade_are_refused(run, tmp_path, shade):
    np.savez(tmp_path / "grey.npz", images=np.full((3, 1, 28, 28), shade, np.uint8))
    code, text, error = run("train", *TINY, "--data", tmp_path / "grey.npz", "--out", tmp_path / "run")
    assert code not in (0, None)
    assert "are of the same shade" in error
    assert "consider --set" not in text
    assert not (tmp_path / "run").exists()


def test_conditional_models_draw_the_labels_in_turn(run, tmp_path):
    code, _, error = run("train", *TINY, "--set", "network.label_dim=10", "--out", tmp_path / "run")
    assert code == 0, error
    sample = [
        "sample",
        "--device",
        "cpu",
        "--checkpoint",
        tmp_path / "run",
        "--num-steps",
        1,
        "--num-samples",
        3,
        "--out",
        tmp_path / "x.npz",
    ]
    assert run(*sample, "--labels", "0-9")[0] == 0
    in_turn = np.load(tmp_path / "x.npz")["images"]
    assert run(*sample)[0] == 0
    assert np.array_equal(np.load(tmp_path / "x.npz")["images"], in_turn), "all classes in turn are the default"
    assert run(*sample, "--labels", "1,0,2")[0] == 0
    swapped = np.load(tmp_path / "x.npz")["images"]
    assert [np.array_equal(*pair) for pair in zip(swapped, in_turn, strict=True)] == [False, False, True]
    assert "this model's classes are 0 to 9" in run(*sample, "--labels", "10")[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config", "lessons"], "did you mean 'lesson'?"),
        (["--set", "training.batchsize=3"], "did you mean 'batch_size'?"),
        (["--set", "sigma_data=-1"], "sigma_data is -1"),
        (["--data", "nowhere"], "There is no data set 'nowhere'"),
        (["--resume", "--minutes", "1"], "leave out --config, --set, --minutes"),
        (["--previous", "--data", "mnist"], "leave out --config, --data, --set"),
        (["--set", "sigma_data=0"], "sigma_data is 0.0; it must be a finite number"),
        (["--minutes", "1"], "--minutes and training.images both say how long"),
        (["--set", "training.clip_norm=0"], "training.clip_norm is 0.0"),
    ],
)
def test_impossible_training_is_refused_in_one_sentence(run, tmp_path, arguments, expected):
    code, _, message = run("train", *TINY, "--out", tmp_path / "run", *arguments)
    assert code not in (0, None)
    assert expected in message
    assert not (tmp_path / "run").exists(), "something was written all the same"


@pytest.fixture
def work(monkeypatch):
    """What was begun of the work that takes time: judging, loading images, training."""
    begun: list[str] = []

    def begin(name):
        def stop(*_, **__):
            begun.append(name)
            raise LessonError("That was too late.")

        return stop

    monkeypatch.setattr(evaluation, "Judge", begin("judge"))
    monkeypatch.setattr(sources, "load_images", begin("images"))
    for module in (judge, trainer):
        monkeypatch.setattr(module, "load_images", begin("images"))
    monkeypatch.setattr(study, "train_in", begin("training"))
    monkeypatch.setattr(samplers, "sample_images", begin("samples"))
    return begun


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("evaluate --num-samples 10001", "num_samples is 10001; it must be a whole number from 2 to 10000"),
        ("evaluate --batch-size 0", "batch_size is 0; it must be a whole number from 1 to 10000"),
        ("evaluate --batch-size 1000000000", "batch_size is 1000000000; it must be a whole number from 1 to 10000"),
        ("evaluate --seeds 1000000000", "seeds is 1000000000; it must be a whole number from 1 to 1000"),
        ("evaluate --num-steps 10000000000", "num_steps is 10000000000; it must be a whole number from 1 to 10000"),
        (f"evaluate --num-steps {','.join('7' * 200)} --rho {','.join('7' * 200)}", "the number of settings is 40000"),
        ("evaluate --S-churn nan", "S_churn is nan"),
        ("evaluate --sampler=", "sampler is ''; it must be one of"),
        ("evaluate --solver heun,", "solver is ''"),
        ("evaluate --sigma-max=", "--sigma-max is ''"),
        ("evaluate --device toaster", "device is 'toaster'"),
        ("evaluate --plot x.gif", "--plot is x.gif; it must end in .png or .svg or .pdf"),
        ("evaluate --plot folder.png", "Can't write folder.png (it is there, and is no file)"),
        ("evaluate --out folder.csv", "Can't write folder.csv (it is there, and is no file)"),
        ("evaluate --out pipe.csv", "Can't write pipe.csv (it is there, and is no file)"),
        ("evaluate --out file/x.csv", "Can't write file/x.csv (Not a directory)"),
        ("study ablation --num-samples 10001", "num_samples is 10001"),
        ("study ablation --only=", "row is ''; it must be one of A, B"),
        ("study ablation --device toaster", "device is 'toaster'"),
        ("study ablation --out file", "Can't write file/ablation.png (Not a directory)"),
        ("curves nowhere --out x.gif", "--out is x.gif; it must end in .png or .svg or .pdf"),
        ("curves nowhere --out folder.png", "Can't write folder.png (it is there"),
        ("sample --out pipe.png", "Can't write pipe.png (it is there, and is no file)"),
        ("sample --out file/x.png", "Can't write file/x.png (Not a directory)"),
        (f"sample --out {'x' * 300}.png", "File name too long"),
        (
            "sample --num-samples 1000000000000000",
            "num_samples is 1000000000000000; it must be a whole number from 1 to",
        ),
        ("sample --labels 0-99999999999", "--labels is '0-99999999999'; write classes as 7"),
        (f"sample --labels {','.join(['0-99999'] * 3)}", "write classes as 7"),
        ("sample --labels=", "--labels is ''"),
        ("sample --sampler=", "--sampler is ''"),
        ("sample --film --num-samples 4 --num-steps 1001", "in 1000 steps, as a .png, not 4 in 1001 steps"),
        ("train --set training.images=10000000000000000", "training.images is 10000000000000000; it must be a whole"),
        ("train --set training.seed=4294967296", "training.seed is 4294967296; it must be a whole number from 0 to"),
        ("train --set training.batch_size=10000000", "training.batch_size is 10000000; it must be a whole number"),
        ("train --set sigma_data=[", "sigma_data=[ is not valid YAML"),
        ("train --config pipe.csv", "There is no configuration 'pipe.csv'"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_work_begins(run, tmp_path, monkeypatch, work, command, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("folder.png", "folder.csv"):
        Path(name).mkdir()
    os.mkfifo("pipe.csv")
    os.mkfifo("pipe.png")
    Path("file").touch()
    before = sorted(tmp_path.rglob("*"))
    code, _, message = run(*command.split())
    assert code not in (0, None)
    assert expected in message
    assert "Traceback" not in message
    assert not work
    assert sorted(tmp_path.rglob("*")) == before


def test_messages_are_one_line_of_a_few_hundred_characters_that_a_terminal_only_shows(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, message = run("sample", "--checkpoint", "\x1b[31mred\n\u202etxt\udcff")
    assert r"There is no checkpoint \x1b[31mred\n\u202etxt\udcff; train one" in message
    *_, message = run("train", "--set", f"network.name={'y' * 3000}")
    assert len(message) < 500
    assert message.startswith("edm-lesson: network.name is 'yyy")
    assert message.endswith("it must be one of lesson, ddpmpp, ncsnpp, adm.")
    *_, message = run("curves", "runs/пробег 😀")
    assert "in runs/пробег 😀;" in message, "what can be printed is left as it is"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "can't do that (no memory)"),
        (
            RuntimeError("can't allocate memory: you tried to allocate 9 bytes"),
            "allocate 9 bytes): take fewer or smaller images",
        ),
        (
            RuntimeError("Could not determine home directory."),
            "home directory.): take fewer or smaller images, or set HOME.",
        ),
    ],
)
def test_what_a_machine_has_not_is_told_in_a_sentence(run, tmp_path, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(samplers, "sample_images", fail)
    assert words in run("sample", "--device", "cpu", "--out", tmp_path / "x.png")[2]
    assert not list(tmp_path.iterdir())


def end_of(*arguments, stdout, stderr=None):
    """How a command ends that prints to these streams, and the text of its exit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["edm-lesson", *map(str, arguments)])
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr or io.TextIOWrapper(io.BytesIO(), "utf-8"))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code


ONE = ["sample", "--device", "cpu", "--num-steps", 1, "--num-samples", 1, "--out"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_no_encoding_and_no_file_name_stops_a_command(tmp_path, encoding):
    for arguments in (["sample", "--help"], ["study", "choices", "--status"], [*ONE, tmp_path / "σ\udcff.png"]):
        printed = io.BytesIO()
        assert end_of(*arguments, stdout=io.TextIOWrapper(printed, encoding)) == 0
        assert printed.getvalue()
    assert b"\\udcff.png" in printed.getvalue()


def test_a_reader_that_has_gone_ends_a_command_quietly_and_its_work_is_kept(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        assert end_of(*ONE, tmp_path / "x.png", stdout=stdout) == 0
    assert Image.open(tmp_path / "x.png").size == (84, 84)


def test_a_command_without_streams_still_does_its_work(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert end_of(*ONE, tmp_path / "x.npz", stdout=None, stderr=sys.stderr) == 0
    assert np.load(tmp_path / "x.npz")["images"].shape == (1, 1, 28, 28)


@pytest.fixture
def few_digits(monkeypatch, mnist):
    """MNIST cut to 1,000 digits where quality is measured, so that measuring takes a second."""
    few = Images(mnist.pixels[:1000], mnist.labels[:1000])
    for module in (judge, data):
        monkeypatch.setattr(module, "load_images", lambda name, split="train", **_: few)


def test_quality_is_measured_shown_and_kept(run, tmp_path, few_digits):
    out = tmp_path / "quality" / "lesson.csv"
    code, text, error = run(
        "evaluate", "--device", "cpu", "--num-samples", 20, "--num-steps", "1,2", "--seeds", 2, "--out", out
    )
    assert code == 0, error
    *kept, real = read_sweep(out)
    assert [(row["num_steps"], row["nfe"], row["seed"]) for row in kept] == [(1, 1, 0), (2, 3, 0), (1, 1, 1), (2, 3, 1)]
    for name in ("distance_ratio", "recognised", "nearest", "copies", "class_shares"):
        assert kept[0][name] is not None
        assert real[name] is not None
    middle = (kept[0]["distance_ratio"] + kept[2]["distance_ratio"]) / 2
    assert f"{middle:.2f} ±" in text
    assert "real" in text


def test_the_course_s_model_and_a_run_of_its_name_keep_their_own_rows(run, tmp_path, few_digits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", *TINY, "--out", "runs/lesson")[0] == 0
    common = ["evaluate", "--device", "cpu", "--num-samples", 4, "--num-steps", 1, "--seeds", 1]
    for checkpoint in ("lesson", "runs/lesson"):
        assert run(*common, "--checkpoint", checkpoint)[0] == 0
    for settings in (["--S-churn", 10], ["--sampler", "vp"], ["--num-steps", "1,2"], ["--seeds", 2]):
        assert run(*common, *settings)[0] == 0
    rows = read_sweep(tmp_path / "runs" / "evaluation.csv")
    assert [row["checkpoint"] for row in rows].count("runs/lesson") == 1
    assert len({row["weights"] for row in rows}) == 3, "two models, and real digits"
    assert len(rows) == 1 + 1 + 1 + 4, "what was measured before is not measured again"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--num-steps", "4,many"], "--num-steps is '4,many'; write whole numbers"),
        (["--num-samples", "1"], "num_samples is 1"),
        (["--seeds", "0"], "seeds is 0"),
        (["--sampler", "ddim"], "sampler is 'ddim'"),
        (["--checkpoint", "nowhere"], "There is no checkpoint nowhere"),
    ],
)
def test_impossible_measurements_are_refused_in_one_sentence(run, tmp_path, few_digits, arguments, expected):
    common = ["evaluate", "--device", "cpu", "--num-samples", 4, "--out", tmp_path / "x.csv"]
    code, _, message = run(*common, *arguments)
    assert code not in (0, None)
    assert expected in message
    assert "Traceback" not in message
    assert not list(tmp_path.iterdir())


COMMANDS = [command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_one_screen_and_has_an_example_that_exists(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = run(*command.split(), "--help")
    assert code == 0
    assert len(text.splitlines()) <= 40
    example = text.partition("Example:")[2]
    assert example.split()[:2] == ["edm-lesson", command or "sample"]
    options = [word for word in example.partition("╭")[0].split() if word.startswith("--")]
    explained = run(command or "sample", "--help")[1].partition("╭")[2]
    assert command == "lab" or all(option in explained for option in options), "JupyterLab alone knows others"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Train and sample EDM diffusion models"),
        ([], 2, "Usage"),
        (["--version"], 0, f"edm-lesson {__version__}"),
        (["train", "--help"], 0, "--set"),
        (["sample", "--nope"], 2, "No such option"),
        (["sampel"], 2, "No such command"),
        (["sample", "--num-steps", "many"], 2, "Invalid value for"),
    ],
)
def test_help_version_and_wrong_usage_are_told_without_the_libraries_that_compute(arguments, code, said):
    program = """
import sys
from edm_lesson.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "numpy", "matplotlib", "omegaconf", "PIL", "tqdm") if name in sys.modules])
"""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]", "nothing of them is loaded"


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    assert __version__ == project["version"]


@pytest.mark.parametrize(("command", "module"), [("course", "papermill"), ("lab", "nbformat")])
def test_what_notebooks_need_besides_is_said_where_it_is_missing(run, monkeypatch, tmp_path, command, module):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("edm_lesson.course")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    _, _, error = run(command)
    assert module in error
    assert "pip install 'edm_lesson[notebooks]'" in error
