"""The folder of a training run: who may write there, what machine it ran on, its metrics and sample grids.

runs/lesson/
  config.yaml, environment.json      what was trained, and where
  metrics.jsonl                      one line every `log_every` images
  samples/000064000.png              what the averaged model draws, from the same latents every time
  checkpoint.safetensors             all that is needed to go on; checkpoint.previous.safetensors is the one before
  denoiser.safetensors               the averaged model alone, once `edm-lesson train` is done
"""

import json
import os
import platform
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from shutil import which

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.nn import Module

from edm_lesson import LessonError, __version__
from edm_lesson.checkpoints import load_checkpoint, previous_path, save_checkpoint
from edm_lesson.config import Config, config_to_yaml
from edm_lesson.data import save_grid, to_uint8
from edm_lesson.samplers import sample_images
from edm_lesson.training.distributed import is_first, wait_for_all, world_size

METRICS = "metrics.jsonl"


class NoRun:
    """What a trainer hands its state to where nothing is kept: it has no folder, or another process writes for all."""

    def open(self, *_: object) -> AbstractContextManager:
        """There is nothing to hold."""
        return nullcontext()

    def log(self, *_: object, **__: object) -> None:
        """Nothing is written."""

    save = draw = log


class Run:
    """The run in `folder`, on `device` in the precision `dtype`, to which a trainer hands what is to be kept."""

    def __init__(self, folder: str | Path, device: torch.device, dtype: torch.dtype):
        self.folder, self.checkpoint = Path(folder), checkpoint_path(folder)
        self.device, self.dtype = device, dtype

    @contextmanager
    def open(self, config: Config, images_seen: int, own: bool, overwrite: bool) -> Iterator[None]:
        """Hold the folder for this process; settings and environment are written down.

        `own` says whether the checkpoint there is the caller's; another's is refused, or removed with `overwrite`.
        Metrics beyond `images_seen` are forgotten: they will be written again. Warns where a run goes on in another
        environment than before.
        """
        with locked(self.folder):
            others = [] if own else [old for old in (self.checkpoint, previous_path(self.checkpoint)) if old.exists()]
            if others and not overwrite:
                raise LessonError(
                    f"{self.folder} holds a run already: call resume() to go on with it, or choose another folder "
                    "(overwrite=True replaces it)."
                )
            for old in others:
                old.unlink()
            write_text(self.folder / "config.yaml", config_to_yaml(config))
            changes = write_environment(self.folder, describe_environment(self.device, self.dtype))
            if changes and images_seen:
                warnings.warn(f"This run won't end bitwise as if never interrupted: {changes}.", stacklevel=3)
            metrics = self.folder / METRICS
            if metrics.exists():
                kept = [line for line in read_metrics(self.folder) if line["images"] <= images_seen]
                write_text(metrics, "".join(json.dumps(line) + "\n" for line in kept))
            yield

    def log(self, **values: float) -> None:
        """Add a line of `values` to the metrics."""
        with open(self.folder / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def save(self, config: Config, tensors: dict[str, Tensor], **state: object) -> None:
        """Write the checkpoint, and keep the one before it."""
        save_checkpoint(self.checkpoint, config, tensors, previous_path(self.checkpoint), **state)

    def draw(self, denoiser: Module, images_seen: int, sampler: Callable) -> None:
        """Draw 64 images from the seeds 0 to 63, the classes in turn, and write them to `samples/`."""
        path = self.folder / "samples" / f"{images_seen:09d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = sample_images(denoiser, 64, classes=range(denoiser.label_dim) or None, sampler=sampler)
        save_grid(to_uint8(samples), path)


def checkpoint_path(folder: str | Path) -> Path:
    """The newest checkpoint of the run in `folder`."""
    return Path(folder) / "checkpoint.safetensors"


def go_back(folder: str | Path) -> None:
    """Make the checkpoint before the newest, which must be whole, the run's only one; the newest is given up."""
    if is_first():
        path = checkpoint_path(folder)
        load_checkpoint(previous_path(path))
        with locked(folder):
            os.replace(previous_path(path), path)
    wait_for_all()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep other processes from training into `folder`, which is made where it is missing; ends with the process."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LessonError(
            f"Another process is training into {folder}. Wait until it ends, or choose another folder."
        ) from None
    except (OSError, NotImplementedError):  # a file system that knows no locks
        pass
    try:
        yield
    finally:
        lock.release()


def describe_environment(device: torch.device, dtype: torch.dtype = torch.float32) -> dict:
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
    if not (root / ".git").exists() or not which("git"):
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def _cpu_model():
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def write_environment(folder: Path, now: dict) -> str:
    """Write `environment.json`; returns what of it may change the result and differs from what stood there, as text."""
    path = folder / "environment.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    except ValueError:  # damaged: nothing is known
        before = {}
    write_text(path, json.dumps(now, indent=2) + "\n")
    names = ("torch", "device", "cpu", "threads", "processes", "precision")
    changed = [name for name in names if before.get(name) != now[name]]
    return ", ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in changed)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def read_metrics(folder: str | Path) -> list[dict]:
    """The metrics of the run in `folder`: one dictionary a line, with `images`, `loss` and more.

    A last line that was cut short is left out.
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
