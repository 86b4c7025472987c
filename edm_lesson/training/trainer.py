"""Training: a loop that can be interrupted at any image.

All that is random in a step (which images, sigma, noise, dropout) follows from the seed and the number of
the step, so a run that is resumed ends with the weights of one that was never stopped.
"""

import hashlib
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from shlex import quote
from statistics import fmean as mean

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from edm_lesson import LessonError
from edm_lesson.augment import AugmentPipe
from edm_lesson.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint, well_formed
from edm_lesson.checks import check_number
from edm_lesson.config import Config
from edm_lesson.data import Images, choose_device, load_images
from edm_lesson.designs import DESIGNS, build_denoiser, build_loss
from edm_lesson.training import distributed
from edm_lesson.training.run import Run, check_memory, checkpoint_path, describe_environment, holds_run
from edm_lesson.training.step import (
    batch_indices,
    choose_precision,
    ema_decay,
    learning_rate_share,
    make_ema,
    seed_for,
    train_step,
)

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Trainer:
    """Everything that training changes: weights, their average, the optimizer, and how many images were seen.

    `denoiser` is being trained; `ema_denoiser`, its moving average, makes the better images. `run_dir` receives what
    `edm_lesson.training.run` lists; `resume()` takes up what it holds, and `train()` replaces a run that was not taken
    up only with `overwrite`. Each of several processes has a trainer; they take every step together.
    """

    def __init__(
        self, config: Config, images: Images, run_dir: str | Path | None = None,
        device: torch.device | str | None = None, overwrite: bool = False,
    ):  # fmt: skip
        settings, label_dim, top_label = config.training, config.network.label_dim, int(images.labels.max())
        found, expected = tuple(images.pixels.shape[1:]), (config.data.img_channels, *[config.data.img_resolution] * 2)
        if found != expected:
            raise ValueError(f"The images are {found} (C, H, W); the configuration says {expected}.")
        if 0 < label_dim <= top_label:
            raise ValueError(f"The labels go up to {top_label}; network.label_dim is {label_dim}, and must be larger.")
        self.config, self.device = config, choose_device(device)
        check_memory(config, self.device, images)
        self._gpus = [self.device] if self.device.type == "cuda" else []
        self.images = images.to(self.device)
        self.images_seen, self.seconds = 0, 0.0
        self.saved: int | None = None  # images that the checkpoint in `run_dir` has seen, where it is this trainer's
        self.losses: list[tuple[int, float]] = []  # images seen, and the mean loss since the pair before
        self._recent: list[float] = []  # losses since the last of `losses`
        self._pending: list[Tensor] = []  # losses that are still on the device
        self._torn = False  # whether the weights have moved, and what follows from that has not
        self._share = distributed.share_of(settings.batch_size)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed_for("weights", 0, settings.seed))
            denoiser = build_denoiser(config)
        if config.data.center:
            denoiser.mean.copy_(images.mean())
        self.denoiser = denoiser.to(self.device, memory_format=torch.channels_last)
        with distributed.together():
            several = distributed.world_size() > 1
            self._parallel = DistributedDataParallel(self.denoiser) if several else self.denoiser
        self.ema = make_ema(
            self.denoiser,
            lambda: ema_decay(settings.batch_size, settings.ema_half_life, self.images_seen, settings.ema_rampup),
        )
        self.loss = build_loss(config)
        self.augment = AugmentPipe(**vars(config.augment)) if config.augment.p else None
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), fused=self.device.type != "mps")
        self.optimizer.register_step_pre_hook(lambda *_: setattr(self, "_torn", True))
        self.dtype = choose_precision(settings.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.run_dir, self.overwrite = run_dir, overwrite
        self.run = Run(run_dir) if run_dir and distributed.is_first() else None

    @property
    def ema_denoiser(self) -> Module:
        """The averaged denoiser, in evaluation mode."""
        return self.ema.module.eval()

    def step(self) -> Tensor:
        """Train on the next batch; returns its loss, on the device: of several processes, that of this one's share."""
        settings, scaler = self.config.training, self.scaler
        number = self.images_seen // settings.batch_size
        indices = batch_indices(number, settings.batch_size, len(self.images), settings.seed)
        if self._gpus:  # other memory would wait for the step before; this is kept by PyTorch until it is copied
            indices = indices.pin_memory().to(self.device, non_blocking=True)
        indices = indices.to(self.device)
        batch = self.images.batch(indices)
        labels = self.images.labels[indices] if self.config.network.label_dim else None
        half = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        seed = seed_for("noise", number, settings.seed)
        loss = distributed.loss_of_share(partial(self.loss, augment=self.augment), self._share, seed)
        self.denoiser.train()
        self.optimizer.param_groups[0]["lr"] = settings.learning_rate * learning_rate_share(self.images_seen, settings)
        with torch.random.fork_rng(self._gpus):
            torch.manual_seed(seed)
            value = train_step(self._parallel, loss, self.optimizer, batch, labels, settings.clip_norm, half, scaler)
        self.images_seen += settings.batch_size
        self.ema.update_parameters(self.denoiser)
        self._torn = False
        return value

    def train(
        self, until: int | None = None, callback: Callable[["Trainer"], None] | None = None, progress: bool = True
    ) -> "Trainer":
        """Train until `until` images were seen (default: all that the configuration asks for); returns self.

        Every `log_every` images the mean loss since the last time is kept and `callback(self)` called; every
        `save_every`, at the end, on Ctrl-C, SIGTERM and SIGHUP a checkpoint is saved; every `sample_every` and at the
        end a grid is drawn. Of several processes the first alone does all that; one that is stopped stops all.

        Whatever else ends training, what was learned is saved, in a folder beside `run_dir` or in that for temporary
        files where there is no other way; a note of what is raised says where.
        """
        settings, first, run = self.config.training, distributed.is_first(), self.run
        until = settings.images if until is None else min(until, settings.images)
        seen, hidden = min(self.images_seen, until), not (progress and first and sys.stderr)
        bar = tqdm(total=until, initial=seen, unit="img", unit_scale=True, disable=hidden)
        environment = describe_environment(self.device, self.dtype) | {"images": str(self.images)}
        folder = run.open(self.config, environment, self.images_seen, self.overwrite) if run else nullcontext()
        with self._rescued(folder) as signals, bar, distributed.together():
            while self.images_seen < until and not distributed.any_stopped(signals):
                started = time.perf_counter()
                self._pending.append(self.step())
                log, save = self._due(settings.log_every, until), self._due(settings.save_every)
                sample = self._due(settings.sample_every, settings.images)
                if log or save or sample:
                    self._collect_losses()
                self.seconds += time.perf_counter() - started
                if log:
                    self._log()
                if save:
                    self.save()
                if sample and run:
                    sampler = DESIGNS[self.config.design.sampler].sample
                    run.draw(self.ema_denoiser, self.images_seen, sampler, self.images.class_names)
                bar.update(settings.batch_size)
                if log:
                    bar.set_postfix(loss=f"{self.losses[-1][1]:.4f}")
                if log and callback and first:
                    callback(self)
            self._collect_losses()
            if self.saved != self.images_seen:
                self.save()
            distributed.wait_for_all()  # no process ends before the first has saved
        return self

    @contextmanager
    def _rescued(self, folder):
        """Hold signals back and `folder` open; what is raised has a note that says where what was learned is."""
        note = None
        try:
            with deferred_signals() as signals, folder:
                try:
                    yield signals
                finally:
                    note = self._rescue() if self.run and self.images_seen else None
        except BaseException as stop:
            if note:
                stop.add_note(note)
            raise

    def _rescue(self):
        """Save what was learned since the last checkpoint, elsewhere if it must be; returns a sentence on that."""
        said = f"Stopped and saved after {self.images_seen:,} images. Go on with: edm-lesson train --resume --out "
        try:
            if self.saved == self.images_seen:
                return said + quote(str(self.run_dir))
            if self._torn:
                raise LessonError("A step was cut in two")
            self._collect_losses(alone=True)
            with suppress(LessonError, OSError):
                self.save()
                return said + quote(str(self.run_dir))
            for parent in (self.run.folder.parent, None):  # None: where temporary files go
                with suppress(OSError):
                    folder = tempfile.mkdtemp(prefix=f"{self.run.folder.name}-", dir=parent)
                    try:
                        save_checkpoint(checkpoint_path(folder), self.config, **self._contents())
                        return said + quote(folder)
                    except LessonError:
                        os.rmdir(folder)
        except Exception:  # it has diverged, or the device doesn't answer any more
            pass
        return "What was learned since the last checkpoint is not saved."

    def _due(self, every, end=math.inf):
        """Whether what is done every `every` images, for 0 never, and at `end` is to be done now."""
        return every > 0 and (self.images_seen % every < self.config.training.batch_size or self.images_seen >= end)

    def _collect_losses(self, alone=False):
        """Bring the losses over from the device, which has to finish its work for that, and look at them."""
        average = torch.Tensor.clone if alone else distributed.mean_over_processes
        values = average(torch.stack(self._pending)).tolist() if self._pending else []
        for step, value in enumerate(values, self.images_seen // self.config.training.batch_size - len(values)):
            if not math.isfinite(value):
                raise self._diverged(f"The loss is {value}", step)
        self._recent += values
        self._pending = []

    def _diverged(self, what, step):
        """The error that says `what` happened at `step`, counted from 0, and at which noise levels."""
        settings = self.config.training
        with torch.random.fork_rng(self._gpus):
            torch.manual_seed(seed_for("noise", step, settings.seed))
            sigma = self.loss.sample_sigma(settings.batch_size, device=self.device)  # what `step` draws first, too
        kept = "none" if self.saved is None else f"{checkpoint_path(self.run_dir)}, after {self.saved:,} images"
        return LessonError(
            f"{what} at step {step:,}, after {step * settings.batch_size:,} images, with sigma from {sigma.min():.3g} "
            f"to {sigma.max():.3g}. The last good checkpoint is {kept}; going on would end here again. Start again "
            "with a lower training.learning_rate or training.clip_norm, or with training.precision=float32."
        )

    def _log(self):
        seen, seconds, loss = self.images_seen, self.seconds, mean(self._recent)
        self.losses.append((seen, loss))
        self._recent = []
        if self.run:
            rate = self.config.training.learning_rate * learning_rate_share(seen, self.config.training)
            speed, seconds = round(seen / seconds, 2), round(seconds, 2)
            self.run.log(images=seen, loss=loss, learning_rate=rate, images_per_second=speed, seconds=seconds)

    @cached_property
    def _data(self):
        """What the images are known by in a checkpoint: a digest of all that is trained on, and their shape."""
        digest = hashlib.sha256(self.images.pixels.cpu().contiguous().numpy())
        if self.config.network.label_dim:
            digest.update(self.images.labels.cpu().contiguous().numpy())
        return {"digest": digest.hexdigest()[:12], "shape": list(self.images.pixels.shape)}

    def save(self) -> None:
        """Write the run's checkpoint and keep the one before it; nothing without a `run_dir`."""
        if self.run_dir is None:
            return
        contents = self._contents()
        if self.run:
            self.run.save(self.config, **contents)
        self.saved = self.images_seen

    def _contents(self):
        """What a checkpoint holds beside the configuration; an error where weights are not finite."""
        modules = {"model": self.denoiser, "ema": self.ema.module}
        tensors = {f"{part}.{name}": each for part in modules for name, each in modules[part].state_dict().items()}
        if not torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).all():
            raise self._diverged("The weights are not finite", self.images_seen // self.config.training.batch_size - 1)
        return {
            "tensors": tensors | optimizer_tensors(self.optimizer),
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "data": self._data,
            "class_names": self.images.class_names,
            "losses": self.losses,
            "recent": self._recent,
            "scaler": self.scaler.state_dict(),
        }

    def save_denoiser(self, path: str | Path) -> None:
        """Write the averaged denoiser alone, for sampling: a quarter of the size of a full checkpoint."""
        tensors = {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        names = self.images.class_names
        save_checkpoint(path, self.config, tensors, images_seen=self.images_seen, class_names=names)

    def resume(self, previous: bool = False) -> "Trainer":
        """Take up training where the run's checkpoint left off; returns self.

        With `previous` it is the checkpoint before the newest, which is given up only when `train` goes on.
        """
        if self.run_dir is None:
            raise LessonError("run_dir is None; to resume, give the trainer the folder of a run as run_dir.")
        path = checkpoint_path(self.run_dir, previous)
        checkpoint = load_checkpoint(path)
        state = checkpoint.state
        if "losses" not in state:
            raise LessonError(f"{path} holds a model alone, to sample from; training can't go on with it.")
        now = asdict(self.config) | {"images": self._data}  # older checkpoints don't say what images they saw
        for part, before in (asdict(checkpoint.config) | {"images": state.get("data", self._data)}).items():
            if before != now[part]:
                raise LessonError(
                    f"The run in {self.run_dir} was started with {part} {before}, not {now[part]}. Resume it with the "
                    "same, or choose another folder."
                )
        checkpoint.restore("model", self.denoiser)
        checkpoint.restore("ema", self.ema.module)
        with well_formed(path):
            moments, losses = checkpoint.part("optimizer"), [(seen, loss) for seen, loss in state["losses"]]
            scaler, numbers = state["scaler"], [*state["recent"], state["seconds"], *sum(losses, ())]
            numbers += scaler.values()
            if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
                raise ValueError("what counts losses and seconds is no number")
            if state["images_seen"] and not moments:
                raise ValueError("the optimizer's moments are missing")
            restore_optimizer(self.optimizer, moments)
            if scaler:  # empty where the run was in another precision until now
                self.scaler.load_state_dict(scaler)
        self.images_seen, self.seconds = state["images_seen"], state["seconds"]
        self.losses, self._recent = losses, state["recent"]
        self._pending, self._torn, self.saved = [], False, self.images_seen
        if self.run:
            self.run.take_up(path)
        distributed.wait_for_all()  # no process goes on before all have read it
        return self


def train_in(
    folder: str | Path, config: Config, images: Images, device: torch.device | str | None = None,
    resume: bool = False, progress: bool = True, previous: bool = False,
) -> Trainer:  # fmt: skip
    """Train into `folder` to the end of `config`, with `resume` from where a run there stands; returns the trainer.

    The averaged model is then also in `denoiser.safetensors`. `previous` is as in `Trainer.resume`.
    """
    trainer = Trainer(config, images, folder, device)
    if resume and holds_run(folder):
        trainer.resume(previous)
    trainer.train(progress=progress)
    if distributed.is_first():
        trainer.save_denoiser(Path(folder) / "denoiser.safetensors")
    return trainer


def images_of(config: Config) -> Images:
    """The images that `config` trains on."""
    data = config.data
    return load_images(data.name, img_resolution=data.img_resolution, img_channels=data.img_channels)


def images_in(
    minutes: float, config: Config, images: Images, device: torch.device | str | None = None, seconds: float = 3.0
) -> int:
    """How many images are trained on in so many `minutes` here, in whole batches; measured in `seconds` of steps."""
    check_number("minutes", minutes, above=0)
    trainer, steps, elapsed = Trainer(config, images, device=device), 1, 0.0
    trainer.step().item()  # the first is slower
    while elapsed < seconds:  # every round is twice as long as the one before; the last one counts
        steps, started = steps * 2, time.perf_counter()
        losses = [trainer.step() for _ in range(steps)]
        losses[-1].item()  # waits for the device
        elapsed = distributed.largest(time.perf_counter() - started)
    return max(int(minutes * 60 / elapsed * steps), 1) * config.training.batch_size


@contextmanager
def deferred_signals(patience: float = 3.0) -> Iterator[list[int]]:
    """Hold back Ctrl-C, a kernel interrupt, SIGTERM and a terminal's hanging up, so that no step is cut in two.

    Yields a list that fills with those that came; the first takes effect after the block. One that comes more than
    `patience` seconds after it (torchrun sends two at once) is let through, for a step that hangs.
    """
    received, times = [], []

    def hold(number, _):
        received.append(number)
        times.append(time.monotonic())
        if times[-1] > times[0] + patience:
            signal.signal(number, handlers[number])
            signal.raise_signal(number)

    main = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in STOPPING if main and hasattr(signal, name)]
    handlers = {n: signal.signal(n, hold) for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in received[:1]:
        signal.raise_signal(number)
