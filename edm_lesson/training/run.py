"""The folder of a training run: who may write there, what machine it ran on, its metrics and sample grids.

runs/lesson/
  config.yaml, environment.json      what was trained, and where
  metrics.jsonl                      one line every `log_every` images
  samples/000064000.png              what the averaged model draws, from the same latents every time
  checkpoint.safetensors             all that is needed to go on; checkpoint.previous.safetensors is the one before
  denoiser.safetensors               the averaged model alone, once `edm-lesson train` is done
"""

import json
import math
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from torch import Tensor
from torch.nn import Module

from edm_lesson import LessonError, __version__
from edm_lesson.checkpoints import metadata_of, previous_path, save_checkpoint
from edm_lesson.config import Config, config_to_yaml
from edm_lesson.data import Images, save_grid, to_uint8
from edm_lesson.data.files import lock, move, write_text
from edm_lesson.designs import parameters_at_least
from edm_lesson.samplers import sample_images
from edm_lesson.training.distributed import world_size

METRICS = "metrics.jsonl"


class Run:
    """The run in `folder`, to which a trainer hands what is to be kept."""

    def __init__(self, folder: str | Path):
        self.folder, self.checkpoint = Path(folder), checkpoint_path(folder)
        self.digest: str | None = None  # of the checkpoint that was saved or taken up last
        self.goes_back = False  # whether that is the one before the newest, which will be given up

    @contextmanager
    def open(self, config: Config, environment: dict, images_seen: int, overwrite: bool) -> Iterator[None]:
        """Hold the folder for this process, and write settings and environment down; warns where that has changed.

        Another trainer's checkpoint is refused, or removed with `overwrite` where nothing was saved or taken up yet.
        Metrics beyond `images_seen` are forgotten: they will be written again.
        """
        with locked(self.folder):
            if overwrite and self.digest is None:
                for old in (self.checkpoint, previous_path(self.checkpoint)):
                    old.unlink(missing_ok=True)
            for left in (*self.folder.glob(".*.part.safetensors"), *self.folder.glob("samples/.*.part.png")):
                left.unlink(missing_ok=True)  # by a process that was killed
            if self.goes_back:
                move(previous_path(self.checkpoint), self.checkpoint)
                self.goes_back = False
            self.refuse_others()
            write_text(self.folder / "config.yaml", config_to_yaml(config))
            changes = write_environment(self.folder, environment)
            if changes and images_seen:
                warnings.warn(f"This run won't end bitwise as if never interrupted: {changes}.", stacklevel=3)
            metrics = self.folder / METRICS
            metrics.touch()
            kept = [line for line in read_metrics(self.folder) if line["images"] <= images_seen]
            write_text(metrics, "".join(json.dumps(line) + "\n" for line in kept))
            yield

    def take_up(self, path: Path) -> None:
        """Go on from the checkpoint `path`, the newest or the one before it."""
        self.digest, self.goes_back = metadata_of(path)["digest"], path != self.checkpoint

    def save(self, config: Config, tensors: dict[str, Tensor], **state: Any) -> None:
        """Write the checkpoint, and keep the one before it."""
        self.refuse_others()
        self.digest = save_checkpoint(self.checkpoint, config, tensors, keep_previous=True, **state)

    def refuse_others(self) -> None:
        """Refuse to replace a checkpoint that was neither saved nor taken up here."""
        if self.digest is None:
            refuse_a_run(self.folder)
        elif self.checkpoint.exists() and metadata_of(self.checkpoint).get("digest") != self.digest:
            raise LessonError(f"Another trainer has saved into {self.folder} since. Call resume() to go on from that.")

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


def checkpoint_path(folder: str | Path, previous: bool = False) -> Path:
    """The newest checkpoint of the run in `folder`, or the `previous` one."""
    path = Path(folder) / "checkpoint.safetensors"
    return previous_path(path) if previous else path


def holds_run(folder: str | Path) -> bool:
    """Whether `folder` holds a run's checkpoint, or the one before it."""
    return any(checkpoint_path(folder, previous).exists() for previous in (False, True))


def refuse_a_run(folder: str | Path) -> None:
    """Refuse a folder that holds a run already, which would be lost."""
    if holds_run(folder):
        raise LessonError(f"{folder} holds a run already. Add --resume (in Python: resume()), or take another folder.")


def check_memory(config: Config, device: torch.device, images: Images | None = None) -> None:
    """Refuse what can't be trained on the machine: weights, their average, gradients, moments, `images`, a batch."""
    batch = config.training.batch_size * config.data.img_channels * config.data.img_resolution**2
    needed = 4 * (5 * parameters_at_least(config) + batch) + (images.pixels.numel() if images else 0)
    held = math.inf  # where nobody says, as on Windows
    if device.type == "cuda":
        held = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        held = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > held:
        raise LessonError(
            f"This configuration needs at least {needed / 2**30:,.1f} GiB of memory; {device} has {held / 2**30:,.1f}. "
            "Take a smaller network.model_channels or training.batch_size, or fewer images."
        )


def locked(folder: str | Path) -> AbstractContextManager:
    """A context that keeps other processes from training into `folder`, which is made where it is missing."""
    try:
        return lock(folder, timeout=0)
    except Timeout:
        raise LessonError(
            f"Another process is training into {folder}. Wait for it, or choose another folder."
        ) from None


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
        before = dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else now
    except (ValueError, TypeError, RecursionError):  # damaged: nothing is known
        before = {}
    write_text(path, json.dumps(now, indent=2) + "\n")
    harmless = ("date", "edm_lesson", "python", "images")  # of the last it is told elsewhere
    changed = [name for name in now if name not in harmless and before.get(name) != now[name]]
    return ", ".join(f"{name} was {before.get(name)!s:.60}, is {now[name]}" for name in changed)


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
            values = line.values() if isinstance(line, dict) and line.keys() >= {"images", "loss"} else [None]
            if not all(type(value) in (int, float) and abs(value) < 1e300 for value in values):  # type: ignore[arg-type]
                raise ValueError(f"line {number} lacks a finite number of images or the loss")
        return metrics
    except (ValueError, RecursionError) as error:
        raise LessonError(f"{path} is damaged ({error}). Move it away: the run can go on without it.") from error
