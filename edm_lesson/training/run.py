"""The folder of a training run: who may write there, what machine it ran on, its metrics and sample grids.

runs/lesson/
  config.yaml, environment.json      what was trained, and where
  metrics.jsonl                      one line every `log_every` images
  samples/000064000.png              what the averaged model draws, from the same latents every time
  checkpoint.safetensors             all that is needed to go on; checkpoint.previous.safetensors is the one before
"""

import json
import os
import platform
import signal
import subprocess
import threading
import time
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch
import yaml

from edm_lesson import LessonError, __version__
from edm_lesson.checkpoints import load_checkpoint, previous_path
from edm_lesson.checks import check_number
from edm_lesson.config import config_to_dict
from edm_lesson.data import save_grid, to_uint8
from edm_lesson.samplers import sample_images
from edm_lesson.training.distributed import largest, world_size

try:
    import fcntl
except ImportError:  # Windows, where folders can't be locked
    fcntl = None

METRICS = "metrics.jsonl"


def diverged(what, sigma, checkpoint=None, images_seen=None):
    """The `LessonError` that says `what` went wrong, at which noise levels, and which checkpoint is still good."""
    saved = "No checkpoint was saved before that"
    if checkpoint:
        saved = f"The last good checkpoint is {checkpoint}, after {images_seen:,} images; going on would end here again"
    return LessonError(
        f"{what}, with sigma from {sigma.min():.3g} to {sigma.max():.3g}. {saved}. Start again with a lower "
        "training.learning_rate or training.clip_norm, or with training.precision=float32."
    )


def checkpoint_path(folder):
    """The newest checkpoint of the run in `folder`."""
    return Path(folder) / "checkpoint.safetensors"


def go_back(folder):
    """Make the checkpoint before the newest the run's only one; the newest is given up.

    Raises `LessonError` where there is none before it, or where that is damaged too.
    """
    path = checkpoint_path(folder)
    load_checkpoint(previous_path(path))
    with locked(folder):
        os.replace(previous_path(path), path)


@contextmanager
def locked(folder):
    """Keep other processes from training into `folder`, which is made where it is missing; ends with the process.

    Raises `LessonError` where another one holds it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LessonError(
                f"Another process is training into {folder}. Wait until it ends, or choose another folder."
            ) from None
        except OSError:  # a file system that knows no locks
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def held_signals():
    """Hold back Ctrl-C, a kernel interrupt and SIGTERM, so that a step is never cut in two.

    Yields a list that fills with those that came. After the block they take effect as if they came then. Outside
    of the main thread, where Python handles no signals, nothing is held back.
    """
    received, handlers = [], {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    for number in handlers:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in received[:1]:
        signal.raise_signal(number)


@contextmanager
def open_run(folder, trainer):
    """The run of `trainer` in `folder`, held for this process: settings and environment are written down.

    Metrics beyond the images that `trainer` has seen are forgotten: they will be written again. Warns where a run
    goes on in another environment than before. Raises `LessonError` where another process holds the folder, and
    where a checkpoint in it is none that `trainer` saved or resumed from, nor may overwrite.
    """
    path = checkpoint_path(folder)
    with locked(folder):
        others = [] if trainer.owns_run else [old for old in (path, previous_path(path)) if old.exists()]
        if others and not trainer.overwrite:
            raise LessonError(
                f"{folder} holds a run already: call resume() to go on with it, or choose another folder "
                "(overwrite=True replaces it)."
            )
        for old in others:
            old.unlink()
        settings = yaml.safe_dump(config_to_dict(trainer.config), sort_keys=False)
        write_text(Path(folder) / "config.yaml", settings)
        changed = write_environment(folder, trainer.device, trainer.dtype)
        if changed and trainer.images_seen:
            told = ", ".join(f"{name} was {before}, is {now}" for name, (before, now) in changed.items())
            warnings.warn(f"This run won't end bitwise as if never interrupted: {told}.", stacklevel=3)
        truncate_metrics(folder, trainer.images_seen)
        yield


def own_random_numbers(device=None):
    """A context that leaves the random numbers of others alone: on the CPU, and on `device` if that is a GPU."""
    return torch.random.fork_rng([device] if device is not None and device.type == "cuda" else [])


def images_in(minutes, trainer, seconds=3.0):
    """How many images are trained on in so many `minutes` here, in whole batches.

    Measured on steps of `trainer`, which is of no use afterwards: at least `seconds` of them, after others to warm
    up. Raises `ValueError` where `minutes` is not above 0.
    """
    check_number("minutes", minutes, above=0)
    steps, elapsed = 1, 0.0
    with own_random_numbers(trainer.device):
        trainer.step().item()
        while elapsed < seconds:  # every round is twice as long as the one before; the last one counts
            steps, started = steps * 2, time.perf_counter()
            losses = [trainer.step() for _ in range(steps)]
            losses[-1].item()  # waits for the device
            elapsed = largest(time.perf_counter() - started)
    batches = int(minutes * 60 / elapsed * steps)
    return max(batches, 1) * trainer.config.training.batch_size


def describe_environment(device, dtype=torch.float32):
    """What may change the result of a run or its speed, as a dictionary of plain values."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "edm_lesson": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "precision": str(dtype).removeprefix("torch."),
    }


def _commit():
    """The commit of the repository that the package lies in, with "-dirty" where files were changed; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def write_environment(folder, device, dtype):
    """Write `environment.json`; returns what of it differs from what stood there and may change the result.

    {name: (before, now)}, empty where nothing does.
    """
    path, now = Path(folder) / "environment.json", describe_environment(device, dtype)
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    except ValueError:  # damaged: nothing is known
        before = {}
    write_text(path, json.dumps(now, indent=2) + "\n")
    names = ("torch", "device", "cpu", "threads", "processes", "precision")
    return {name: (before.get(name), now[name]) for name in names if before.get(name) != now[name]}


def write_text(path, text):
    """Write `text` to `path`, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def append_metrics(folder, **values):
    """Add one line of `values` to the metrics of the run in `folder`."""
    with open(Path(folder) / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_metrics(folder):
    """The metrics of the run in `folder`: one dictionary a line, with `images`, `loss` and more.

    A last line that was cut short is left out. Raises `LessonError` where there is no such file, or a damaged one.
    """
    path = Path(folder) / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        metrics = [json.loads(line) for line in lines if line.endswith("\n")]
        for number, values in enumerate(metrics, 1):
            if not isinstance(values, dict) or not all(type(values.get(k)) in (int, float) for k in ("images", "loss")):
                raise ValueError(f"line {number} lacks the number of images or the loss")
        return metrics
    except (FileNotFoundError, NotADirectoryError):
        raise LessonError(
            f"There is no {METRICS} in {folder}; give the folder of a run, as edm-lesson train makes one."
        ) from None
    except ValueError as error:
        raise LessonError(f"{path} is damaged ({error}). Move it away: the run can go on without it.") from error


def truncate_metrics(folder, images_seen):
    """Forget the metrics beyond `images_seen`, which a run that goes on from there writes again."""
    path = Path(folder) / METRICS
    if path.exists():
        kept = [json.dumps(values) + "\n" for values in read_metrics(folder) if values["images"] <= images_seen]
        write_text(path, "".join(kept))


def write_grid(folder, denoiser, images_seen, sampler, offset=(0.0,)):
    """Draw 64 images from the seeds 0 to 63, the classes in turn, and write them to `samples/`."""
    classes = range(denoiser.label_dim) if denoiser.label_dim else None
    path = Path(folder) / "samples" / f"{images_seen:09d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_grid(to_uint8(sample_images(denoiser, 64, classes=classes, sampler=sampler), offset), path)
