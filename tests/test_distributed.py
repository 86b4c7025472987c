"""Several processes train as one does: the same weights, one of them that writes, and all stop together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from forks import exit_codes
from torch import distributed as dist

from edm_lesson.checkpoints import load_checkpoint, load_tensors, save_tensors
from edm_lesson.config import load_config
from edm_lesson.data import Images
from edm_lesson.losses import EDMLoss
from edm_lesson.training import Trainer, distributed, images_in
from edm_lesson.training.distributed import join_processes, loss_of_share, share_of
from edm_lesson.training.run import checkpoint_path, locked, read_metrics
from edm_lesson.training.trainer import images_of

SETTINGS = [
    "training.images=192",
    "training.log_every=32",
    "training.save_every=64",
    "training.sample_every=0",
    "training.warmup=0",
    "training.precision=float32",
    "training.learning_rate=1e-3",
    "training.clip_norm=0.02",
    "network.model_channels=8",
    "network.label_dim=3",
    "augment.p=0.5",
]


def trainer_of(folder=None, *overrides):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (100, 1, 28, 28), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.randint(0, 3, (100,), generator=generator))
    return Trainer(load_config("smoke", [*SETTINGS, *overrides]), images, folder, "cpu")


def weights(trainer):
    return {
        **{f"model.{name}": tensor for name, tensor in trainer.denoiser.state_dict().items()},
        **{f"ema.{name}": tensor for name, tensor in trainer.ema.module.state_dict().items()},
    }


def in_two(folder, function, *arguments):
    """Make a call in two processes that train together; returns their exit codes, in the order of their ranks."""
    folder.mkdir(exist_ok=True)
    meet = f"file://{folder}/{time.monotonic_ns()}"
    return exit_codes(*[(join_and_call, meet, rank, function, folder, *arguments) for rank in (0, 1)])


def join_and_call(meet, rank, function, folder, *arguments):
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    function(rank, folder, *arguments)


def train(rank, folder, run, resume=False, stop_at=None):
    trainer = trainer_of(folder / run)
    if resume:
        trainer.resume()
    if rank == 1 and stop_at:
        trainer.loss = stopping(trainer.loss, stop_at)
    try:
        trainer.train(progress=False)
    except (RuntimeError, OSError) as error:
        (folder / f"said by {rank}").write_text(str(error))
        raise
    save_tensors(folder / f"weights of {rank}", weights(trainer), {"losses": trainer.losses})


def stopping(loss, call):
    """`loss`, during whose call number `call` the process gets a signal."""
    calls = []

    def stop(*arguments, **settings):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGTERM)
        return loss(*arguments, **settings)

    return stop


@pytest.fixture(scope="module")
def one():
    return trainer_of().train(progress=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What a run of two processes left behind."""
    folder = tmp_path_factory.mktemp("two")
    assert in_two(folder, train, "run") == [0, 0]
    return folder


def test_two_processes_end_with_the_weights_and_losses_of_one(one, two):
    start = weights(trainer_of())
    for rank in (0, 1):
        found, header = load_tensors(two / f"weights of {rank}")
        for name, expected in weights(one).items():
            torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-5, msg=f"{name} of process {rank}")
        assert header["losses"] == [[seen, pytest.approx(loss, abs=1e-5)] for seen, loss in one.losses]
    assert all((found[name] - start[name]).abs().max() > 1e-3 for name in found if name.endswith("conv0.weight"))


def test_the_processes_stay_in_step_bit_for_bit(two):
    (first, _), (second, _) = (load_tensors(two / f"weights of {rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_process_writes_for_all(one, two):
    assert [line["images"] for line in read_metrics(two / "run")] == [images for images, _ in one.losses]
    assert json.loads((two / "run" / "environment.json").read_text())["processes"] == 2
    checkpoint = load_checkpoint(checkpoint_path(two / "run"))
    found, _ = load_tensors(two / "weights of 0")
    assert checkpoint.state["images_seen"] == 192
    assert all(torch.equal(checkpoint.tensors[name], found[name]) for name in found)


def test_a_signal_to_one_process_stops_all_at_the_same_step_and_they_go_on_exactly(one, two, tmp_path):
    assert in_two(tmp_path, train, "run", False, 5) == [143, 143]
    assert images_seen(tmp_path / "run") == 5 * 16
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    assert in_two(tmp_path, train, "run", True) == [0, 0]
    (whole, _), (resumed, _) = (load_tensors(folder / "weights of 1") for folder in (two, tmp_path))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)

    with pytest.warns(UserWarning, match="won't end bitwise as if never interrupted: processes was 2, is 1"):
        resumed = trainer_of(tmp_path / "alone").resume().train(progress=False)
    for name, expected in weights(one).items():
        torch.testing.assert_close(weights(resumed)[name], expected, rtol=0, atol=1e-5, msg=name)


def test_where_the_first_can_not_go_on_the_others_end_too_and_say_where_to_look(tmp_path):
    with locked(tmp_path / "run"):
        assert in_two(tmp_path, train, "run") == [1, 1]
    assert "Another process is training into" in (tmp_path / "said by 0").read_text()
    assert "Another process of this run has ended; mend what it said" in (tmp_path / "said by 1").read_text()


def train_and_die(rank, folder):
    trainer = trainer_of(folder / "run")
    loss, calls = trainer.loss, []

    def die(*arguments, **settings):
        calls.append(1)
        if rank == 1 and len(calls) == 3:
            os._exit(9)
        return loss(*arguments, **settings)

    trainer.loss = die
    try:
        trainer.train(progress=False)
    except ConnectionError as error:
        (folder / "said").write_text("\n".join([str(error), *error.__notes__]))
        raise


def test_where_a_process_dies_the_first_says_so_in_a_sentence_and_saves_what_was_learned(one, tmp_path):
    assert in_two(tmp_path, train_and_die) == [1, 9]
    said, note = (tmp_path / "said").read_text().splitlines()
    assert said == "Another process of this run has ended; mend what it said, and --resume."
    assert note.startswith("Stopped and saved after 32 images. Go on with: edm-lesson train --resume --out ")
    assert in_two(tmp_path, train, "run", True) == [0, 0]
    found, _ = load_tensors(tmp_path / "weights of 1")
    for name, expected in weights(one).items():
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-5, msg=name)


def test_processes_read_images_side_by_side(pretend):
    pretend(1, 2)  # and there is nobody to wait for
    assert len(images_of(load_config("smoke"))) == 60_000


def measure(rank, folder):
    trainer, step = trainer_of(), Trainer.step
    Trainer.step = lambda trainer: time.sleep(0.02 * rank) or step(trainer)
    (folder / f"images of {rank}").write_text(str(images_in(0.1, trainer.config, trainer.images, "cpu", seconds=0.1)))


def test_all_processes_measure_the_same_budget(tmp_path):
    assert in_two(tmp_path, measure) == [0, 0]
    assert (tmp_path / "images of 0").read_text() == (tmp_path / "images of 1").read_text()


@pytest.fixture
def pretend(monkeypatch):
    """Make this process believe that it is one of several."""

    def believe(rank, world_size):
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "world_size", lambda: world_size)

    return believe


def test_noise_is_that_of_the_whole_batch_and_dropout_is_everyones_own(pretend):
    images, labels = torch.randn(6, 1, 4, 4), torch.arange(6)
    seen, dropped, generator = [], [], torch.Generator()

    def denoiser(x, sigma, class_labels, augment_labels):
        seen.append((x, sigma, class_labels))
        dropped.append(torch.rand(4))
        return x

    def loss_as(rank, world_size, seed=5):
        pretend(rank, world_size)
        generator.manual_seed(
            1
        )  # as in training, but not by torch.manual_seed: whoever calls may have a state of its own
        torch.set_rng_state(generator.get_state())
        return loss_of_share(EDMLoss(), share_of(6), seed)(denoiser, images, labels)

    whole, *parts = [loss_as(0, 1), *(loss_as(rank, 3) for rank in range(3))]
    torch.testing.assert_close(torch.cat(parts), whole)
    for number in range(3):
        assert torch.equal(torch.cat([part[number] for part in seen[1:]]), seen[0][number])
    assert len({tuple(mask.tolist()) for mask in dropped[1:]}) == 3
    torch.manual_seed(99)
    loss_as(1, 3)
    assert torch.equal(dropped[-1], dropped[2]), "the seed given decides"
    loss_as(1, 3, seed=7)
    assert not torch.equal(dropped[-1], dropped[2])


def test_a_batch_that_can_not_be_shared_out_is_refused(pretend):
    pretend(0, 3)
    with pytest.raises(ValueError, match=r"batch_size is 16; for 3 processes take a multiple of 3"):
        trainer_of()


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda", 1, "started 2 processes for 1 GPUs; lower --nproc-per-node, or add --device cpu"),
        (None, 1, "started 2 processes for 1 GPUs"),
        ("cuda", 0, "for 0 GPUs"),
        ("cuda:1", 2, "device with torchrun is 'cuda:1'; it must be one of cpu, cuda"),
        ("mps", 0, "device with torchrun is 'mps'"),
    ],
)
def test_a_process_without_a_device_of_its_own_is_refused(monkeypatch, device, gpus, message):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=message):
        join_processes(device)


def test_without_torchrun_nothing_is_joined():
    assert join_processes("cuda:7") == "cuda:7"
    assert distributed.world_size() == 1


def images_seen(folder):
    return load_checkpoint(checkpoint_path(folder)).state["images_seen"]


def torchrun_until(number, folder, *options):
    """Train with torchrun and send it the signal `number` once it has saved; returns what was said."""
    checkpoint = checkpoint_path(folder)
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "edm_lesson", "train", "--device", "cpu", "--out", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        deadline = time.monotonic() + 300
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        return process.communicate(timeout=300)[0]
    finally:
        process.kill()


def test_torchrun_trains_stops_and_goes_on(tmp_path):
    folder, before = tmp_path / "run", 0
    start = ["--config", "smoke", "--set", "training.images=10_000_000"]
    start += [part for setting in SETTINGS[1:-2] for part in ("--set", setting)]
    for number, options in [(signal.SIGINT, start), (signal.SIGTERM, ["--resume"])]:
        said = torchrun_until(number, folder, *options)
        seen = images_seen(folder)
        assert seen > before, said
        assert said.count(f"Stopped and saved after {seen:,} images. Go on with: ") == 1, said
        assert said.count("60,000 images of") == 1, said
        before = seen
    logged = [line["images"] for line in read_metrics(folder)]
    assert logged == list(range(32, logged[-1] + 1, 32)), "every one once, whoever wrote it"
