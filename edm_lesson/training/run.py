"""The folder of a training run: who may write there, what machine it ran on, its metrics and sample grids.

runs/lesson/
  config.yaml, environment.json      what was trained, and where
  metrics.jsonl                      one line every `log_every` images
  samples/000064000.png              what the averaged model draws, from the same latents every time
  checkpoint.safetensors             all that is needed to go on; checkpoint.previous.safetensors is the one before
  denoiser.safetensors               the averaged model alone, once `edm-lesson train` is done
"""

import json
import platform
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch.nn import Module

from edm_lesson import LessonError, __version__
from edm_lesson.checkpoints import load_checkpoint, previous_path
from edm_lesson.config import Config, config_to_yaml
from edm_lesson.data import save_grid, to_uint8
from edm_lesson.data.files import move, write_text
from edm_lesson.samplers import sample_images
from edm_lesson.training.distributed import is_first, wait_for_all, world_size

METRICS = "metrics.jsonl"


class Run:
    """The run in `folder`, to which a trainer hands what is to be kept."""

    def __init__(self, folder: str | Path):
        self.folder, self.checkpoint = Path(folder), checkpoint_path(folder)

    @contextmanager
    def open(self, config: Config, environment: dict, images_seen: int, own: bool, overwrite: bool) -> Iterator[None]:
        """Hold the folder for this process, and write settings and environment down; warns where that has changed.

        A checkpoint that isn't the caller's `own` is refused, or removed with `overwrite`. Metrics beyond `images_seen`
        are forgotten: they will be written again.
        """
        with locked(self.folder):
            if overwrite and not own:
                for old in (self.checkpoint, previous_path(self.checkpoint)):
                    old.unlink(missing_ok=True)
            if not own:
                refuse_a_run(self.folder)
            write_text(self.folder / "config.yaml", config_to_yaml(config))
            changes = write_environment(self.folder, environment)
            if changes and images_seen:
                warnings.warn(f"This run won't end bitwise as if never interrupted: {changes}.", stacklevel=3)
            metrics = self.folder / METRICS
            metrics.touch()
            kept = [line for line in read_metrics(self.folder) if line["images"] <= images_seen]
            write_text(metrics, "".join(json.dumps(line) + "\n" for line in kept))
            yield

    def log(self, **values: float) -> None:
        """Add a line of `values` to the metrics."""
        with open(self.folder / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def draw(self, denoiser: Module, images_seen: int, sampler: Callable, class_names: Sequence[str]) -> None:
        """Draw 64 images from the seeds 0 to 63, the classes in turn, and write them to `samples/`."""
        path = self.folder / "samples" / f"{images_seen:09d}.png"
        classes = range(denoiser.label_dim)[: len(class_names) or None]  # others were never trained
        samples = sample_images(denoiser, 64, classes=classes or None, sampler=sampler)
        save_grid(to_uint8(samples), path)


def checkpoint_path(folder: str | Path) -> Path:
    """The newest checkpoint of the run in `folder`."""
    return Path(folder) / "checkpoint.safetensors"


def refuse_a_run(folder: str | Path) -> None:
    """Refuse a folder that holds a run already, which would be lost."""
    path = checkpoint_path(folder)
    if path.exists() or previous_path(path).exists():
        raise LessonError(f"{folder} holds a run already. Add --resume (in Python: resume()), or take another folder.")


def go_back(folder: str | Path) -> None:
    """Make the checkpoint before the newest, which must be whole, the run's only one; the newest is given up."""
    if is_first():
        path = checkpoint_path(folder)
        load_checkpoint(previous_path(path))
        with locked(folder):
            move(previous_path(path), path)
    wait_for_all()


def locked(folder: str | Path) -> AbstractContextManager:
    """A context that keeps other processes from training into `folder`, which is made where it is missing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(Path(folder) / ".lock").acquire(timeout=0)
    except Timeout:
        raise LessonError(
            f"Another process is training into {folder}. Wait for it, or choose another folder."
        ) from None
    except (OSError, NotImplementedError):  # a file system that knows no locks
        return nullcontext()


def describe_environment(device: torch.device, dtype: torch.dtype = torch.float32) -> dict:
    """What may change the result of a run or its speed, as a dictionary of plain values."""
    cpus = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpus.read_text() if cpus.exists() else "")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "edm_lesson": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "precision": str(dtype).removeprefix("torch."),
    }


def write_environment(folder: Path, now: dict) -> str:
    """Write `environment.json`; returns what of it may change the result and differs from what stood there, as text."""
    path = folder / "environment.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    except ValueError:  # damaged: nothing is known
        before = {}
    write_text(path, json.dumps(now, indent=2) + "\n")
    harmless = ("date", "edm_lesson", "python", "images")  # of the last it is told elsewhere
    changed = [name for name in now if name not in harmless and before.get(name) != now[name]]
    return ", ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in changed)


def read_metrics(folder: str | Path) -> list[dict]:
    """The metrics of the run in `folder`, a dictionary a line; a last one that was cut short is left out."""
    path = Path(folder) / METRICS
    if not path.is_file():
        raise LessonError(
            f"There is no {METRICS} in {folder}; give the folder of a run, as edm-lesson train makes one."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        metrics = [json.loads(line) for line in lines if line.endswith("\n")]
        for number, line in enumerate(metrics, 1):
            if not isinstance(line, dict) or not all(type(line.get(key)) in (int, float) for key in ("images", "loss")):
                raise ValueError(f"line {number} lacks the number of images or the loss")
        return metrics
    except ValueError as error:
        raise LessonError(f"{path} is damaged ({error}). Move it away: the run can go on without it.") from error
