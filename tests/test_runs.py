"""Runs: what their folder holds, who may write there, and how they are stopped, taken up and drawn."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from edm_lesson import LessonError
from edm_lesson.checkpoints import load_checkpoint, load_denoiser, previous_path
from edm_lesson.config import load_config
from edm_lesson.data import Images, normalize
from edm_lesson.plots.lines import smooth
from edm_lesson.training import Trainer, images_in
from edm_lesson.training import run as runs
from edm_lesson.training import trainer as trainers
from edm_lesson.training.run import checkpoint_path, locked, read_metrics
from edm_lesson.training.step import choose_precision

SETTINGS = [
    "training.images=320",
    "training.log_every=64",
    "training.save_every=128",
    "training.sample_every=0",
    "network.model_channels=8",
]
OPTIONS = ["--config", "smoke", "--device", "cpu", *[part for setting in SETTINGS for part in ("--set", setting)]]
WITHOUT_TIMES = ("images", "loss", "learning_rate")


@pytest.fixture(scope="module")
def few():
    pixels = torch.randint(0, 256, (100, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Images(pixels, torch.zeros(100, dtype=torch.long))


@pytest.fixture
def call(run):
    """Run the command line; returns its exit code and all that it said."""

    def run_and_join(*arguments):
        code, out, error = run(*arguments)
        return code, out + error

    return run_and_join


def trainer_of(images, folder=None, *overrides):
    return Trainer(load_config("smoke", [*SETTINGS, *overrides]), images, folder, "cpu")


def same_weights(checkpoint, trainer):
    expected = {f"ema.{name}": tensor for name, tensor in trainer.ema.module.state_dict().items()}
    expected |= {f"model.{name}": tensor for name, tensor in trainer.denoiser.state_dict().items()}
    found = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("optimizer.")}
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def timeless(metrics):
    return [{name: line[name] for name in WITHOUT_TIMES} for line in metrics]


def test_metrics_of_a_resumed_run_are_those_of_one_never_stopped(few, tmp_path):
    trainer_of(few, tmp_path / "whole").train(progress=False)
    whole = read_metrics(tmp_path / "whole")
    assert [line["images"] for line in whole] == [64, 128, 192, 256, 320]
    assert whole[-1]["learning_rate"] == 0
    assert all(line["images_per_second"] > 0 for line in whole)
    assert 0 < whole[0]["seconds"] < whole[-1]["seconds"]

    folder = tmp_path / "stopped"
    trainer_of(few, folder).train(until=256, progress=False)
    os.replace(previous_path(checkpoint_path(folder)), checkpoint_path(folder))  # as if killed after image 256
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"images": 3')
    trainer_of(few, folder).resume().train(progress=False)
    assert timeless(read_metrics(folder)) == timeless(whole)
    Trainer(trainer_of(few).config, few, folder, "cpu", overwrite=True).train(until=64, progress=False)
    assert timeless(read_metrics(folder)) == timeless(whole)[:1], "a run that starts anew starts its metrics anew"
    assert not previous_path(checkpoint_path(folder)).exists(), "nothing of the run before is left to go back to"


@pytest.mark.parametrize("left", ["checkpoint.safetensors", "checkpoint.previous.safetensors"])
def test_a_run_is_not_overwritten_by_a_trainer_that_did_not_take_it_up(few, tmp_path, left):
    first = trainer_of(few, tmp_path).train(until=192, progress=False)
    for path in (checkpoint_path(tmp_path), previous_path(checkpoint_path(tmp_path))):
        if path.name != left:
            path.unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        LessonError, match=r"holds a run already\. Add --resume \(in Python: resume\(\)\), or take another"
    ):
        trainer_of(few, tmp_path, "training.seed=1").train(progress=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    first.train(until=256, progress=False)  # its own run


@pytest.mark.parametrize(
    "line",
    [
        '{"images": 1}',
        '{"images": 1, "loss": "low"}',
        '{"images": 1, "loss": NaN}',
        '{"images": 1e999, "loss": 1}',
        '{"images": 1, "loss": 1, "seconds": null}',
        "[]",
        "3",
    ],
)
def test_metrics_without_a_loss_are_called_damaged(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"images": 1, "loss": 2.5}}\n{line}\n')
    with pytest.raises(LessonError, match=r"metrics\.jsonl is damaged \(line 2 lacks .*the loss\)\. Move it away"):
        read_metrics(tmp_path)


def test_metrics_that_nest_without_end_are_called_damaged(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(LessonError, match=r"metrics\.jsonl is damaged"):
        read_metrics(tmp_path)


def test_a_trainer_whose_run_another_went_on_with_is_refused_until_it_resumes(few, tmp_path):
    first = trainer_of(few, tmp_path)
    first.overwrite = True  # which is for what it finds, not for what comes after
    first.train(until=64, progress=False)
    second = trainer_of(few, tmp_path).resume().train(until=192, progress=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for go_on in (lambda: first.train(until=128, progress=False), first.save):
        with pytest.raises(LessonError, match=r"Another trainer has saved into .* since.*Call resume\(\)"):
            go_on()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert same_weights(load_checkpoint(checkpoint_path(tmp_path)), second)
    assert first.resume().train(progress=False).images_seen == 320
    with pytest.raises(LessonError, match="holds a run already"):
        trainer_of(few, tmp_path).save()


def test_only_what_a_run_made_is_removed(few, tmp_path):
    trainer_of(few, tmp_path).train(until=64, progress=False)
    (tmp_path / "samples").mkdir()
    own = [".checkpoint.part.safetensors", ".denoiser.part.safetensors", "samples/.000000064.part.png"]
    others = ["notes.txt", ".mine.part.txt", "samples/mine.png", "samples/000000064.png", "other.safetensors"]
    for name in [*own, *others]:
        (tmp_path / name).write_text("left")
    Trainer(trainer_of(few).config, few, tmp_path, "cpu", overwrite=True).train(until=16, progress=False)
    assert all((tmp_path / name).read_text() == "left" for name in others)
    assert not any((tmp_path / name).exists() for name in own), "what a killed process left goes"


def test_previous_gives_the_newest_up_only_when_training_goes_on(call, few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("few.npz", images=few.pixels.numpy())
    other = [part for setting in SETTINGS[:-1] for part in ("--set", setting)]
    call("train", "--config", "smoke", *other, "--data", "few.npz", "--device", "cpu", "--out", "run")
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    os.rename("few.npz", "away.npz")
    assert call("train", "--previous", "--device", "cpu", "--out", "run")[0]
    np.savez("few.npz", images=few.pixels.numpy()[::-1])
    assert "was started with images" in call("train", "--previous", "--device", "cpu", "--out", "run")[1]
    os.rename("away.npz", "few.npz")
    assert "device is 'meta'" in call("train", "--previous", "--device", "meta", "--out", "run")[1]
    with locked("run"):
        assert "Another process" in call("train", "--previous", "--device", "cpu", "--out", "run")[1]
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before
    stopped = Trainer(load_checkpoint("run/checkpoint.safetensors").config, few, "run", "cpu").resume(previous=True)
    assert stopped.images_seen == 256
    stopped.train(until=272, progress=False)
    assert [load_checkpoint(checkpoint_path("run", each)).state["images_seen"] for each in (False, True)] == [272, 256]


@pytest.mark.parametrize("setting", ["network.model_channels=1000000", "network.num_blocks=1000000000"])
def test_a_network_that_no_machine_holds_is_refused_before_images_are_read(call, tmp_path, monkeypatch, setting):
    monkeypatch.setattr(trainers, "load_images", None)
    _, said = call("train", "--config", "smoke", "--device", "cpu", "--set", setting, "--out", tmp_path / "run")
    assert "This configuration needs at least" in said
    assert not (tmp_path / "run").exists()


def test_the_memory_asked_for_is_no_more_than_is_needed(few, monkeypatch):
    config = trainer_of(few).config
    parameters = sum(map(torch.numel, trainer_of(few).denoiser.parameters()))
    needed = 4 * (5 * parameters + config.training.batch_size * 784) + few.pixels.numel()
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": needed}
    monkeypatch.setattr(os, "sysconf", pages.get)
    trainer_of(few)
    pages["SC_PHYS_PAGES"] = needed // 4
    with pytest.raises(LessonError, match=r"needs at least 0\.0 GiB of memory; cpu has"):
        trainer_of(few)


def test_the_environment_is_written_and_a_change_is_told(few, tmp_path):
    trainer_of(few, tmp_path).train(until=128, progress=False)
    path = tmp_path / "environment.json"
    found = json.loads(path.read_text())
    assert found["torch"] == torch.__version__
    precision = str(choose_precision("auto", "cpu")).removeprefix("torch.")  # depends on the processor
    assert (found["device"], found["threads"], found["precision"]) == ("cpu", torch.get_num_threads(), precision)
    assert found.keys() >= {"date", "edm_lesson", "python", "cpu"}
    path.write_text(json.dumps(found | {"threads": 64}))
    with pytest.warns(UserWarning, match=rf"won't end bitwise.*threads was 64, is {torch.get_num_threads()}"):
        trainer_of(few, tmp_path).resume().train(until=160, progress=False)
    for nothing in ("[]", "[1]", "3", "[" * 100_000, "null"):
        path.write_text(nothing)
        with pytest.warns(UserWarning, match="torch was None"):
            trainer_of(few, tmp_path).resume().train(until=160, progress=False)


def test_grids_show_the_same_latents_and_change_nothing(few, tmp_path, monkeypatch):
    seeds, sample_images = [], runs.sample_images

    def fewer(denoiser, num_samples, **settings):
        seeds.append((num_samples, settings.get("seed", 0)))
        torch.rand(1)
        return sample_images(denoiser, 4, num_steps=2, **settings)

    monkeypatch.setattr(runs, "sample_images", fewer)
    drawn = trainer_of(few, tmp_path / "drawn", "training.sample_every=128", "network.dropout=0.1")
    drawn.train(progress=False)
    names = [path.name for path in sorted((tmp_path / "drawn" / "samples").iterdir())]
    assert names == ["000000128.png", "000000256.png", "000000320.png"]
    assert seeds == [(64, 0)] * 3
    assert Image.open(tmp_path / "drawn" / "samples" / names[0]).size[0] > 28
    plain = trainer_of(few, tmp_path / "plain", "network.dropout=0.1").train(progress=False)
    assert not (tmp_path / "plain" / "samples").exists()
    assert same_weights(load_checkpoint(checkpoint_path(tmp_path / "drawn")), plain)


def test_a_folder_in_use_is_refused_and_free_afterwards(few, tmp_path):
    with locked(tmp_path), pytest.raises(LessonError, match=r"Another process is training into .*choose another"):
        trainer_of(few, tmp_path).train(progress=False)
    assert not list(tmp_path.glob("[!.]*")), "nothing was written"
    trainer_of(few, tmp_path).train(until=16, progress=False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_process_leaves_a_checkpoint_that_goes_on_exactly(mnist, tmp_path, number, code):
    endless = ["--set", "training.images=10_000_000"]
    command = [sys.executable, "-m", "edm_lesson", "train", *OPTIONS, *endless, "--out", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not checkpoint_path(tmp_path).exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        with pytest.raises(LessonError, match="Another process"), locked(tmp_path):
            pass
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, said
    seen = load_checkpoint(checkpoint_path(tmp_path)).state["images_seen"]
    assert f"Stopped and saved after {seen:,} images. Go on with: edm-lesson train --resume --out {tmp_path}" in said
    resumed = trainer_of(mnist, tmp_path, endless[1]).resume().train(until=seen + 48, progress=False)
    whole = trainer_of(mnist, None, endless[1]).train(until=seen + 48, progress=False)
    assert same_weights(load_checkpoint(checkpoint_path(tmp_path)), whole)
    assert resumed.losses[:-1] == whole.losses[: len(resumed.losses) - 1]


def test_a_damaged_checkpoint_is_named_and_the_command_it_offers_works(call, mnist, tmp_path):
    folder = tmp_path / "my run"
    code, said = call("train", *OPTIONS, "--out", folder)
    assert code == 0, said
    newest = checkpoint_path(folder)
    newest.write_bytes(newest.read_bytes()[:-1])
    code, said = call("train", "--resume", "--device", "cpu", "--out", folder)
    assert code != 0
    assert f"{newest} is no checkpoint, or was cut short" in said
    assert "is whole (256 images)" in said
    offered = shlex.split(said[said.index("edm-lesson train") :])
    code, said = call(*offered[1:], "--device", "cpu")
    assert code == 0, said
    whole = trainer_of(mnist).train(progress=False)
    assert same_weights(load_checkpoint(newest), whole)
    assert timeless(read_metrics(folder))[-1]["images"] == 320
    assert len(read_metrics(folder)) == 5
    assert load_checkpoint(previous_path(newest)).state["images_seen"] == 256


def test_minutes_become_images_by_a_measurement_that_leaves_the_start_out(few, monkeypatch):
    calls = []

    def step(trainer):
        calls.append(1)
        time.sleep(0.01 if len(calls) > 1 else 0.3)
        return torch.zeros(())

    monkeypatch.setattr(Trainer, "step", step)
    config = load_config("smoke", ["training.batch_size=7", "network.model_channels=8"])
    images = images_in(1, config, few, "cpu", seconds=0.1)
    assert images % 7 == 0
    assert 0.3 * 6000 * 7 < images <= 6000 * 7, "60 seconds of 7 images in 0.01 seconds, or a little more"
    assert images_in(1e-9, config, few, "cpu", seconds=0.01) == 7
    with pytest.raises(ValueError, match="minutes is 0; it must be a finite number above 0"):
        images_in(0, config, few)


def test_a_budget_in_minutes_is_stored_in_images_and_trains_as_those_would(call, mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(trainers, "images_in", lambda *arguments: images_in(*arguments, seconds=0.05))
    other = [part for setting in SETTINGS[1:] for part in ("--set", setting)]
    code, said = call(
        "train", "--config", "smoke", "--device", "cpu", *other, "--minutes", 0.01, "--out", tmp_path / "run"
    )
    assert code == 0, said
    images = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["images"]
    assert f"training.images={images}" in said
    checkpoint = load_checkpoint(checkpoint_path(tmp_path / "run"))
    assert checkpoint.config.training.images == checkpoint.state["images_seen"] == images
    assert same_weights(checkpoint, trainer_of(mnist, None, f"training.images={images}").train(progress=False))


def test_runs_go_where_their_configuration_says_and_are_never_overwritten(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("training: {batch_size: 16}\nnetwork: {model_channels: 8}\n")
    tiny = ["--device", "cpu", *[part for setting in SETTINGS for part in ("--set", setting)]]
    code, said = call("train", "--config", "mine.yaml", *tiny)
    assert code == 0, said
    before = Path("runs/mine/checkpoint.safetensors").read_bytes()
    code, said = call("train", "--config", "mine.yaml", *tiny)
    assert "runs/mine holds a run already. Add --resume" in said
    assert Path("runs/mine/checkpoint.safetensors").read_bytes() == before


def test_the_curves_of_several_runs_are_drawn(call, few, tmp_path):
    for name, rate in [("fast", 4e-3), ("slow", 1e-4)]:
        trainer_of(few, tmp_path / name, f"training.learning_rate={rate}").train(progress=False)
    code, said = call("curves", tmp_path / "fast", tmp_path / "slow", "--out", tmp_path / "new" / "curves.png")
    assert code == 0, said
    pixels = np.asarray(Image.open(tmp_path / "new" / "curves.png").convert("L"))
    assert (pixels < 128).sum() > 500, "the picture is not empty"
    code, said = call("curves", tmp_path / "fast", "--out", tmp_path / "loss")
    assert f"{tmp_path / 'loss.png'} shows the loss of {tmp_path / 'fast'}" in said
    assert (tmp_path / "loss.png").exists()
    (tmp_path / "slow" / "metrics.jsonl").write_text("")
    code, said = call("curves", tmp_path / "fast", tmp_path / "slow", "--out", tmp_path / "none.png")
    assert code != 0
    assert f"{tmp_path / 'slow'} has no metrics yet" in said
    assert not (tmp_path / "none.png").exists()
    code, said = call("curves", tmp_path / "nowhere")
    assert code != 0
    assert f"There is no metrics.jsonl in {tmp_path / 'nowhere'}" in said


def test_smoothing_keeps_a_steep_start_and_averages_what_follows():
    assert smooth([8.0, 4.0, 2.0]) == [8.0, 4.0, 2.0]
    assert smooth([1.0] * 30) == [1.0] * 30
    assert smooth([0.0, 1.0] * 50)[-1] == pytest.approx(0.5)


def test_a_grid_of_a_model_with_classes_shows_them_in_turn(few, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        runs, "sample_images", lambda denoiser, number, **settings: seen.update(settings) or normalize(few.pixels[:4])
    )
    trainer_of(few, tmp_path, "network.label_dim=3", "training.sample_every=64").train(until=64, progress=False)
    assert list(seen["classes"]) == [0, 1, 2]


def test_class_names_are_kept_and_no_class_is_drawn_that_was_never_trained(few, tmp_path, monkeypatch, run):
    classes = []
    monkeypatch.setattr(
        runs, "sample_images", lambda *_, **settings: classes.append(settings["classes"]) or normalize(few.pixels[:4])
    )
    named = replace(few, class_names=("cats", "dogs", "birds 😀"), notes=("left out: 2 .txt",))
    trainer = trainer_of(named, tmp_path, "network.label_dim=5", "training.sample_every=64").train(progress=False)
    trainer.save_denoiser(tmp_path / "alone.safetensors")
    assert list(classes[0]) == [0, 1, 2]
    assert json.loads((tmp_path / "environment.json").read_text())["images"] == str(named)
    for path in (tmp_path, tmp_path / "alone.safetensors"):
        assert load_denoiser(path, "cpu").class_names == named.class_names
        text = run("sample", "--checkpoint", path, "--device", "cpu", "--num-steps", 1, "--out", tmp_path / "a.png")[1]
        assert "the classes in turn: 0 cats, 1 dogs, 2 birds 😀\n" in text
