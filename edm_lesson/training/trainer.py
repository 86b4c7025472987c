"""Training: a loop that can be interrupted at any image.

All that is random in a step (which images, sigma, noise, dropout) follows from the seed and the number of
the step, so a run that is resumed ends with the weights of one that was never stopped.
"""

import hashlib
import math
import time
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean as mean

import torch
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from edm_lesson import LessonError
from edm_lesson.checkpoints import (
    load_checkpoint,
    optimizer_tensors,
    previous_path,
    restore_optimizer,
    save_checkpoint,
)
from edm_lesson.config import config_to_dict
from edm_lesson.data import choose_device
from edm_lesson.designs import build_augment, build_denoiser, build_loss, choose_sampler
from edm_lesson.training.distributed import any_stopped, averaged, largest, leads, loss_of_share, parallel, share_of
from edm_lesson.training.run import (
    append_metrics,
    checkpoint_path,
    diverged,
    held_signals,
    open_run,
    own_random_numbers,
    write_grid,
)
from edm_lesson.training.step import (
    _mix,
    batch_indices,
    choose_precision,
    ema_decay,
    learning_rate_share,
    make_ema,
    train_step,
)


class Trainer:
    """Everything that training changes: weights, their average, the optimiser, and how many images were seen.

    `Trainer(config, images)` starts anew. `train()` goes on to the end of `config.training.images`, or to `until`;
    it can be interrupted (Ctrl-C) and called again. `run_dir`, if given, receives what `edm_lesson.training.run` lists,
    and `resume()` takes up what it holds; a run there that isn't taken up is replaced only with `overwrite`, at the
    start of `train()`. `denoiser` is being trained, `ema_denoiser` is its moving average, which
    makes the better images. `losses` are pairs (images seen, mean loss since the pair before).

    In several processes (`edm_lesson.training.distributed`) every one has a trainer; they take each step together.
    """

    def __init__(self, config, images, run_dir=None, device=None, overwrite=False):
        self.config, self.run_dir, self.overwrite = config, Path(run_dir) if run_dir else None, overwrite
        self.device = choose_device(device)
        expected = (config.data.img_channels, config.data.img_resolution, config.data.img_resolution)
        if tuple(images.pixels.shape[1:]) != expected:
            raise ValueError(
                f"The images are {tuple(images.pixels.shape[1:])} (C, H, W); the configuration says {expected}."
            )
        top_label, label_dim = int(images.labels.max()), config.network.label_dim
        if 0 < label_dim <= top_label:
            raise ValueError(f"The labels go up to {top_label}; network.label_dim is {label_dim}, and must be larger.")
        self.images = images.to(self.device)
        self.images_seen, self.seconds, self.losses = 0, 0.0, []
        self._recent, self._pending = [], []  # losses since the last of `losses`; and those still on the device
        self._saved = None  # images seen at the last checkpoint

        settings = config.training
        self._share = share_of(settings.batch_size)
        with own_random_numbers():
            torch.manual_seed(_mix(settings.seed, 0))
            denoiser = build_denoiser(config)
        self.denoiser = denoiser.to(self.device, memory_format=torch.channels_last)
        self._parallel = parallel(self.denoiser)
        self.ema = make_ema(
            self.denoiser,
            lambda: ema_decay(settings.batch_size, settings.ema_half_life, self.images_seen, settings.ema_rampup),
        )
        self.loss, self.augment = build_loss(config), build_augment(config)
        self.optimizer = torch.optim.Adam(
            self.denoiser.parameters(), settings.learning_rate, fused=self.device.type != "mps"
        )
        self.scheduler = LambdaLR(
            self.optimizer, lambda step: learning_rate_share(step * settings.batch_size, settings)
        )
        self.dtype = choose_precision(settings.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    @property
    def ema_denoiser(self):
        """The averaged denoiser, in evaluation mode."""
        return self.ema.module.eval()

    @property
    def owns_run(self):
        """Whether the checkpoint in `run_dir` is one that this trainer saved or resumed from."""
        return self._saved is not None

    @cached_property
    def _data(self):
        """What the images are known by in a checkpoint: their shape, and a digest of all that is trained on."""
        digest = hashlib.sha256(self.images.pixels.cpu().contiguous().numpy())
        if self.config.network.label_dim:
            digest.update(self.images.labels.cpu().contiguous().numpy())
        return {"shape": list(self.images.pixels.shape), "digest": digest.hexdigest()[:12]}

    def step(self):
        """Train on the next batch; returns its loss, on the device: of several processes, that of this one's share."""
        settings = self.config.training
        number = self.images_seen // settings.batch_size
        indices = batch_indices(number, settings.batch_size, len(self.images), settings.seed)
        indices = indices.to(self.device, non_blocking=True)  # blocking, the copy would wait for the step before
        labels = self.images.labels[indices] if self.config.network.label_dim else None
        autocast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        torch.manual_seed(_mix(settings.seed, number + 1))
        self.denoiser.train()
        batch = self.images.batch(indices)
        loss = partial(self.loss, augment=self.augment) if self.augment else self.loss
        loss = loss_of_share(loss, self._share)
        value = train_step(
            self._parallel, loss, self.optimizer, batch, labels, settings.clip_norm, autocast, self.scaler
        )
        self.images_seen += settings.batch_size
        self.scheduler.step()
        self.ema.update_parameters(self.denoiser)
        return value

    def train(self, until=None, callback=None, progress=True):
        """Train until `until` images were seen (default: all that the configuration asks for); returns self.

        Every `log_every` images the mean loss since the last time is appended to `losses` and to `metrics.jsonl`, and
        `callback(self)` is called; every `save_every`, at the end, on Ctrl-C and on SIGTERM a checkpoint is saved;
        every `sample_every` and at the end a grid is drawn. Of several processes the first alone does all that; one
        that is stopped stops all. Raises `LessonError` where a loss isn't finite, where another process trains into
        `run_dir`, and where that holds a run that was neither taken up nor may be overwritten.
        """
        settings = self.config.training
        until = settings.images if until is None else min(until, settings.images)
        folder = open_run(self.run_dir, self) if self.run_dir and leads() else nullcontext()
        seen, hidden = min(self.images_seen, until), not (progress and leads())
        bar = tqdm(total=until, initial=seen, unit="img", unit_scale=True, disable=hidden)
        with held_signals() as stop, folder, own_random_numbers(self.device), bar:
            started, logged = time.perf_counter() - self.seconds, (self.images_seen, self.seconds)
            while self.images_seen < until and not any_stopped(stop):
                self._pending.append(self.step())
                bar.update(settings.batch_size)
                log = self._passed(settings.log_every) or self.images_seen >= until
                save = self._passed(settings.save_every)
                sample = self._passed(settings.sample_every) or self.images_seen >= settings.images
                if log or save or sample:
                    self._collect_losses()
                    self.seconds = time.perf_counter() - started
                if log:
                    self._log((self.images_seen - logged[0]) / (self.seconds - logged[1]))
                    logged = self.images_seen, self.seconds
                    bar.set_postfix(loss=f"{self.losses[-1][1]:.4f}")
                if save:
                    self.save()
                if sample and settings.sample_every and self.run_dir and leads():
                    sampler = choose_sampler(self.config.design.sampler)
                    write_grid(self.run_dir, self.ema_denoiser, self.images_seen, sampler, self.images.offset)
                if log and callback is not None and leads():
                    callback(self)
                if log or save or sample:
                    started = time.perf_counter() - self.seconds  # what went to all that is not training time
            self._collect_losses()
            self.seconds = time.perf_counter() - started
            if self._saved != self.images_seen:
                self.save()
            largest(0)  # no process ends before the first has saved
        return self

    def _passed(self, every):
        """Whether the last step reached a multiple of `every` images; never where that is 0."""
        return every > 0 and self.images_seen % every < self.config.training.batch_size

    def _collect_losses(self):
        """Bring the losses over from the device, which has to finish its work for that, and look at them."""
        values = averaged(torch.stack(self._pending)).tolist() if self._pending else []
        for step, value in enumerate(values, self.images_seen // self.config.training.batch_size - len(values)):
            if not math.isfinite(value):
                raise self._diverged(f"The loss is {value}", step)
        self._recent += values
        self._pending = []

    def _diverged(self, what, step):
        """The error that says `what` happened at `step`, counted from 0, and at which noise levels."""
        settings = self.config.training
        with own_random_numbers(self.device):
            torch.manual_seed(_mix(settings.seed, step + 1))
            sigma = self.loss.sample_sigma(settings.batch_size, device=self.device)  # what `step` draws first, too
        path = checkpoint_path(self.run_dir) if self._saved is not None else None
        return diverged(
            f"{what} at step {step:,}, after {step * settings.batch_size:,} images", sigma, path, self._saved
        )

    def _log(self, images_per_second):
        self.losses.append((self.images_seen, mean(self._recent)))
        self._recent = []
        if self.run_dir and leads():
            append_metrics(
                self.run_dir,
                images=self.images_seen,
                loss=self.losses[-1][1],
                learning_rate=self.scheduler.get_last_lr()[0],
                images_per_second=round(images_per_second, 2),
                seconds=round(self.seconds, 2),
            )

    def save(self):
        """Write the run's checkpoint and keep the one before it; nothing without a `run_dir`.

        Raises `LessonError` rather than save weights that aren't finite, and `LessonError` where the file
        can't be written.
        """
        if self.run_dir is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.denoiser.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        if not torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).all():
            raise self._diverged("The weights are not finite", self.images_seen // self.config.training.batch_size - 1)
        path = checkpoint_path(self.run_dir)
        if leads():
            save_checkpoint(
                path,
                self.config,
                tensors | optimizer_tensors(self.optimizer),
                previous_path(path),
                images_seen=self.images_seen,
                seconds=self.seconds,
                offset=list(self.images.offset),
                data=self._data,
                losses=self.losses,
                recent=self._recent,
                param_groups=self.optimizer.state_dict()["param_groups"],
                scheduler=self.scheduler.state_dict(),
                scaler=self.scaler.state_dict(),
            )
        self._saved = self.images_seen

    def save_denoiser(self, path):
        """Write the averaged denoiser alone, for sampling: a quarter of the size of a full checkpoint."""
        tensors = {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        save_checkpoint(path, self.config, tensors, images_seen=self.images_seen, offset=list(self.images.offset))

    def resume(self):
        """Take up training where the run's checkpoint left off; returns self.

        Raises `LessonError` where there is none, or where it belongs to another configuration or is no run's, and
        `LessonError` without a `run_dir` and where the run was trained on other images.
        """
        if self.run_dir is None:
            raise LessonError("run_dir is None; to resume, give the trainer the folder of a run as run_dir.")
        path = checkpoint_path(self.run_dir)
        checkpoint = load_checkpoint(path)
        if "param_groups" not in checkpoint.state:
            raise LessonError(f"{path} holds a model alone, to sample from; training can't go on with it.")
        theirs, ours = config_to_dict(checkpoint.config), config_to_dict(self.config)
        for section in ours:
            if theirs[section] != ours[section]:
                raise LessonError(
                    f"The run in {self.run_dir} was started with {section} {theirs[section]}, not {ours[section]}. "
                    "Resume with the same configuration, or choose another folder."
                )
        before = checkpoint.state.get("data", self._data)  # older checkpoints don't say
        if before != self._data:
            told = "{} images of {}, digest {}"
            was, now = (
                told.format(f"{data['shape'][0]:,}", tuple(data["shape"][1:]), data["digest"])
                for data in (before, self._data)
            )
            raise LessonError(
                f"The run in {self.run_dir} was trained on {was}, not on {now}. Resume with the same images, or choose "
                "another folder."
            )
        checkpoint.restore("model", self.denoiser)
        checkpoint.restore("ema", self.ema.module)
        restore_optimizer(self.optimizer, checkpoint.part("optimizer"), checkpoint.state["param_groups"])
        self.scheduler.load_state_dict(checkpoint.state["scheduler"])
        self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.images_seen, self.seconds = checkpoint.state["images_seen"], checkpoint.state["seconds"]
        self.losses, self._recent = [tuple(pair) for pair in checkpoint.state["losses"]], checkpoint.state["recent"]
        self._pending, self._saved = [], self.images_seen
        return self
