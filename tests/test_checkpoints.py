"""Checkpoints: what is saved is loaded, and what is damaged, foreign or dangerous is not."""

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edm_lesson import LessonError, checkpoints
from edm_lesson.checkpoints import (
    find_checkpoint,
    load_checkpoint,
    load_denoiser,
    load_tensors,
    previous_path,
    save_checkpoint,
    save_tensors,
)
from edm_lesson.config import load_config
from edm_lesson.data import Images
from edm_lesson.training import Trainer, train_in


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {
        "ema.a": torch.arange(6.0).reshape(2, 3),
        "ema.b": torch.tensor(3, dtype=torch.int64),
        "model.a": torch.ones(2).bfloat16(),
    }
    save_checkpoint(path, load_config("smoke"), tensors, images_seen=7)
    return path, tensors


def test_what_is_saved_is_loaded(saved):
    path, tensors = saved
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == load_config("smoke")
    assert checkpoint.state == {"images_seen": 7}
    assert checkpoint.tensors.keys() == tensors.keys()
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in tensors.items())
    assert checkpoint.part("ema").keys() == {"a", "b"}


def test_a_changed_byte_is_noticed_wherever_it_is(saved):
    path, _ = saved
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(LessonError, match=r"model\.safetensors"):
            load_checkpoint(path)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(saved, length):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LessonError, match="is no checkpoint, or was cut short"):
        load_checkpoint(path)


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(LessonError, match="is no checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()
    torch.save(Trap(), path)
    with pytest.raises(LessonError, match="is no checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_foreign_weights_and_missing_files_are_refused(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(LessonError, match=r"foreign\.safetensors was not written by edm_lesson"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    with pytest.raises(LessonError, match=r"There is no checkpoint .*nowhere.*edm-lesson train"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_tensors_without_a_configuration_are_kept_as_strictly(tmp_path):
    path = tmp_path / "features.safetensors"
    save_tensors(path, {"weight": torch.arange(3.0)}, {"accuracy": 0.99})
    tensors, header = load_tensors(path)
    assert torch.equal(tensors["weight"], torch.arange(3.0))
    assert header == {"accuracy": 0.99}
    with pytest.raises(LessonError, match=r"holds no denoiser: its header is .'accuracy': 0\.99"):
        load_checkpoint(path)
    path.write_bytes(path.read_bytes().replace(b"0.99", b"1.00"))
    with pytest.raises(LessonError, match="is damaged or was changed"):
        load_tensors(path)
    with pytest.raises(LessonError, match=r"There is no checkpoint .*nowhere\.safetensors"):
        load_tensors(tmp_path / "nowhere.safetensors")


def test_the_file_before_is_kept_and_offered_only_where_it_is_whole(saved):
    path, _ = saved
    save_checkpoint(path, load_config("smoke"), {"a": torch.zeros(1)}, keep_previous=True, images_seen=9)
    assert load_checkpoint(path).state == {"images_seen": 9}
    assert load_checkpoint(previous_path(path)).state == {"images_seen": 7}
    assert {file.name for file in path.parent.iterdir()} == {"model.safetensors", "model.previous.safetensors"}
    path.write_bytes(path.read_bytes()[:-1])
    offer = r"(?s)model\.safetensors is no checkpoint.*model\.previous\.safetensors, is whole \(7 images\).*--previous"
    with pytest.raises(LessonError, match=offer):
        load_checkpoint(path)
    path.unlink()
    with pytest.raises(LessonError, match=r"There is no checkpoint .*is whole"):
        load_checkpoint(path)
    previous_path(path).write_bytes(b"")
    with pytest.raises(LessonError) as refused:
        load_checkpoint(path)
    assert "previous" not in str(refused.value)


def test_a_file_that_can_not_be_read_is_not_called_missing_or_damaged_and_nothing_is_offered(saved, monkeypatch):
    path, _ = saved
    save_checkpoint(path, load_config("smoke"), {"a": torch.zeros(1)}, keep_previous=True, images_seen=9)

    def deny(file, mode):
        if file == path:  # root may read everything: chmod does not do
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return open(file, mode)

    monkeypatch.setattr(checkpoints, "open", deny, raising=False)
    with pytest.raises(
        LessonError, match=r"model\.safetensors can't be read \(Permission denied\), and may be"
    ) as refused:
        load_checkpoint(path)
    assert "previous" not in str(refused.value)
    assert load_checkpoint(previous_path(path)).state["images_seen"] == 7
    monkeypatch.undo()
    os.mkfifo(path.with_name("pipe.safetensors"))
    with pytest.raises(LessonError, match=r"pipe\.safetensors is no checkpoint.*it is no file"):
        load_checkpoint(path.with_name("pipe.safetensors"))


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """A tiny run's trainer, and how to sign and load a changed checkpoint of it."""
    folder = tmp_path_factory.mktemp("a run")
    images = Images(torch.randint(0, 256, (32, 1, 28, 28), dtype=torch.uint8), torch.zeros(32))
    config = load_config("smoke", ["training.images=32", "training.sample_every=0", "network.model_channels=8"])
    trainer = Trainer(config, images, folder, "cpu").train(progress=False)
    return trainer, load_tensors(folder / "checkpoint.safetensors")


HEADERS = {
    "a list": lambda header: [],
    "a number": lambda header: 3,
    "numbers": lambda header: [1, 2],
    "a word": lambda header: "config, state",
    "no state": lambda header: {"config": header["config"]},
    "a state that is a list": lambda header: header | {"state": []},
    "a configuration that is a list": lambda header: header | {"config": []},
    "a number for the network": lambda header: header | {"config": header["config"] | {"network": 3}},
    "a negative width": lambda header: network_of(header, model_channels=-4),
    "a network that no machine holds": lambda header: network_of(header, model_channels=1_000_000),
    "ten milliard blocks": lambda header: network_of(header, num_blocks=10**10),
    "ten milliard classes": lambda header: network_of(header, label_dim=10**10),
    "no number of images": lambda header: header | {"state": {"losses": []}},
    "a word for the images": lambda header: state_of(header, images_seen="many"),
    "fewer than no images": lambda header: state_of(header, images_seen=-16),
}
STATES = {
    "losses that are words": lambda header: state_of(header, losses=["ab"]),
    "losses without end": lambda header: state_of(header, losses=[[16, float("inf")]]),
    "losses that are single": lambda header: state_of(header, losses=[3]),
    "a word for the seconds": lambda header: state_of(header, seconds="long"),
    "a word among the losses": lambda header: state_of(header, recent=["high"]),
    "a list for the scaler": lambda header: state_of(header, scaler=[1]),
}
TENSORS = {
    "half of the weights": lambda name, tensor: {} if name.endswith(".bias") else {name: tensor},
    "weights of other types": lambda name, tensor: {name: tensor.double()},
    "whole numbers": lambda name, tensor: {name: tensor.long()},
    "flat weights": lambda name, tensor: {name: tensor.flatten()},
    "weights of other names": lambda name, tensor: {f"{name}s": tensor},
}
MOMENTS = {
    "no moments": lambda name, tensor: {},
    "moments of other shapes": lambda name, tensor: {name: tensor[..., None]},
    "moments that would spread": lambda name, tensor: {name: tensor.flatten()[:1]},
    "moments of whole numbers": lambda name, tensor: {name: tensor.long()},
    "half of the moments": lambda name, tensor: {} if name.endswith("exp_avg") else {name: tensor},
    "moments of strangers": lambda name, tensor: {f"optimizer.x{name[10:]}": tensor},
}


def network_of(header, **changed):
    network = header["config"]["network"] | changed
    return header | {"config": header["config"] | {"network": network}}


def state_of(header, **changed):
    return header | {"state": header["state"] | changed}


@pytest.mark.parametrize("what", [*HEADERS, *STATES, *TENSORS, *MOMENTS])
def test_what_is_signed_but_malformed_is_refused_in_a_sentence(a_run, tmp_path, what):
    trainer, (tensors, header) = a_run
    header, path = json.loads(json.dumps(header)), tmp_path / "checkpoint.safetensors"
    header = {**HEADERS, **STATES}.get(what, lambda header: header)(header)
    part, change = "optimizer." if what in MOMENTS else "", {**TENSORS, **MOMENTS}.get(what)
    changed = [change(*each) if change and each[0].startswith(part) else dict([each]) for each in tensors.items()]
    save_tensors(path, {name: tensor for each in changed for name, tensor in each.items()}, header)
    refused = pytest.raises(LessonError, match=r"checkpoint|configuration|was started with network")
    if what in (*HEADERS, *TENSORS):
        with refused:
            load_denoiser(path, "cpu")
    with refused:
        Trainer(trainer.config, trainer.images, tmp_path, "cpu").resume()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_checkpoint_that_was_there(saved, monkeypatch, call):
    path, _ = saved
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, call, full)
    with pytest.raises(LessonError, match="No space left"):
        save_checkpoint(path, load_config("smoke"), {"a": torch.zeros(1)})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("name", checkpoints.PRETRAINED)
def test_the_shipped_models_load_ready_to_sample(name):
    denoiser = load_denoiser(name, device="cpu")
    assert not denoiser.training
    assert not any(parameter.requires_grad for parameter in denoiser.parameters())
    assert (denoiser.img_channels, denoiser.img_resolution) == (1, 28)
    assert denoiser.config == load_config(name), "the shipped weights belong to the shipped configuration"
    assert checkpoints.find_checkpoint(name).stat().st_size <= 8_000_000


def test_a_missing_shipped_model_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("EDM_LESSON_DATA", str(tmp_path))
    with pytest.raises(
        LessonError, match=r"(?s)Set EDM_LESSON_DATA .*edm-lesson train --config lesson --out runs/lesson"
    ):
        load_denoiser("lesson")


def test_a_run_and_its_exported_model_load_the_averaged_weights(tmp_path):
    images = Images(torch.randint(0, 256, (32, 1, 28, 28), dtype=torch.uint8), torch.zeros(32))
    config = load_config("smoke", ["training.images=64", "data.center=true"])
    trainer = Trainer(config, images, tmp_path, "cpu").train(progress=False)
    trainer.save_denoiser(tmp_path / "small.safetensors")
    for place in (tmp_path, tmp_path / "checkpoint.safetensors", tmp_path / "small.safetensors"):
        denoiser = load_denoiser(place, device="cpu")
        assert torch.equal(denoiser.mean, images.mean())
        for loaded, averaged in zip(denoiser.parameters(), trainer.ema_denoiser.parameters(), strict=True):
            assert torch.equal(loaded, averaged)
    assert any(
        not torch.equal(raw, averaged)
        for raw, averaged in zip(trainer.denoiser.parameters(), trainer.ema.parameters(), strict=True)
    )


def test_a_run_of_version_0_1_whose_images_were_centered_is_loaded_and_goes_on(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(Path(__file__).parent / "version_0_1", folder)
    denoiser = load_denoiser(folder, device="cpu")
    assert denoiser.mean.flatten().tolist() == pytest.approx([-0.2152727, -0.2182943, -0.1939530], abs=1e-6)
    x = torch.linspace(-1, 1, 3 * 64).reshape(1, 3, 8, 8)
    answered = [-0.5575656, -0.4162936, -0.2748060, -0.1340267, 0.0070368, 0.1632286, 0.3043905]  # by version 0.1
    assert denoiser(x, 0.7).flatten()[::31].tolist() == pytest.approx(answered, abs=1e-4)

    pixels = torch.randint(0, 200, (32, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    trainer = Trainer(load_config(folder / "config.yaml"), Images(pixels, torch.zeros(32)), folder, "cpu").resume()
    assert trainer.images_seen == 32
    torch.testing.assert_close(trainer.denoiser.mean, trainer.images.mean())
    assert trainer.train(progress=False).images_seen == 64


def test_a_run_opens_the_small_file_only_where_it_holds_the_weights_of_its_checkpoint(tmp_path):
    whole, alone = tmp_path / "checkpoint.safetensors", tmp_path / "denoiser.safetensors"

    def save(path, seen, at):
        save_checkpoint(path, load_config("smoke"), {"ema.a": torch.zeros(1)}, images_seen=seen)
        os.utime(path, (at, at))

    save(whole, 64, at=1000)
    assert find_checkpoint(tmp_path) == whole
    save(alone, 64, at=1001)
    assert find_checkpoint(tmp_path) == alone
    save(whole, 128, at=1002)  # trained on since
    assert find_checkpoint(tmp_path) == whole
    save(whole, 32, at=999)  # gone back to the one before
    assert find_checkpoint(tmp_path) == whole
    save(whole, 64, at=1003)  # another run, just as long
    assert find_checkpoint(tmp_path) == whole
    save(whole, 64, at=1000)
    alone.write_bytes(alone.read_bytes()[:-100][:50])
    assert find_checkpoint(tmp_path) == whole
    whole.unlink()
    assert find_checkpoint(tmp_path) == whole, "which is missing, and told so"


def test_sampling_from_a_finished_run_reads_no_moments(tmp_path, monkeypatch):
    images = Images(torch.randint(0, 256, (32, 1, 28, 28), dtype=torch.uint8), torch.zeros(32))
    trainer = train_in(tmp_path, load_config("smoke", ["training.images=32"]), images, "cpu", progress=False)
    read = []
    monkeypatch.setattr(checkpoints, "load_tensors", lambda path: read.append(path) or load_tensors(path))
    denoiser = load_denoiser(tmp_path, device="cpu")
    assert read == [tmp_path / "denoiser.safetensors"]
    for loaded, averaged in zip(denoiser.parameters(), trainer.ema_denoiser.parameters(), strict=True):
        assert torch.equal(loaded, averaged)
