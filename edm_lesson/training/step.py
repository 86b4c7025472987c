"""One step of training, and what goes with it: the average of the weights, learning rate, precision, batches, seeds."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edm_lesson.config import TrainingConfig

RANDOM_STREAMS = ("weights", "order", "noise")  # what is drawn in training; each has seeds of its own


def train_step(
    denoiser: Module, loss: Callable, optimizer: Optimizer, images: Tensor, class_labels: Tensor | None = None,
    clip_norm: float = math.inf, autocast: torch.autocast | None = None, scaler: GradScaler | None = None,
) -> Tensor:  # fmt: skip
    """One step down the loss on a batch of clean images (B, C, H, W); returns the loss, still on the device.

    A gradient longer than `clip_norm` is shortened to that. `autocast` is a context for the forward pass in half
    precision, `scaler` a `torch.amp.GradScaler` for float16, which skips steps whose gradient overflows.
    """
    scaler = scaler or GradScaler(enabled=False)
    with autocast or torch.autocast(images.device.type, enabled=False):
        value = loss(denoiser, images, class_labels).mean()
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(denoiser.parameters(), clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return value.detach()


def ema_decay(batch_size: int, half_life: float, images_seen: int | None = None, rampup: float = 0.05) -> float:
    """The EMA's decay for one step of `batch_size` images: 1/2 ** (batch_size / half_life), in [0, 1).

    After `half_life` images half of what was there before is left. With `images_seen` the half-life is at
    most `rampup` times that, so that the first, useless weights are soon forgotten.
    """
    if images_seen is not None:
        half_life = min(half_life, rampup * images_seen)
    return 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0


def make_ema(model: Module, decay: Callable[[], float]) -> AveragedModel:
    """A copy of `model` whose `update_parameters(model)` keeps `decay()` of itself and takes the rest from `model`."""

    def average(averaged, current, number):
        get_ema_multi_avg_fn(decay())(averaged, current, number)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=False)
    ema.n_averaged += 1  # the start counts as the first value: torch would overwrite it instead
    return ema.requires_grad_(False)


def learning_rate_share(images_seen: int, settings: TrainingConfig) -> float:
    """The share of the learning rate that is due after `images_seen` images: a linear rise over `settings.warmup`
    images, then along a cosine down to 0 at `settings.images`."""
    rise = min((images_seen + settings.batch_size) / settings.warmup, 1.0) if settings.warmup else 1.0
    return rise * 0.5 * (1 + math.cos(math.pi * min(images_seen / settings.images, 1.0)))


def choose_precision(precision: str, device: torch.device | str) -> torch.dtype:
    """The dtype that `precision` names; for "auto" bf16 where `device` has it, fp16 on older GPUs, else float32."""
    named = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in named:
        return named[precision]
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    features = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # private names: a later torch may lack them
    native = device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in features)
    return torch.bfloat16 if native else torch.float32  # where a CPU has it, it was measured to be faster


def batch_indices(step: int, batch_size: int, num_images: int, seed: int = 0) -> Tensor:
    """Which images make up batch number `step`, int64 (batch_size,): every time round in a new random order."""
    start, stop = step * batch_size, (step + 1) * batch_size
    first = start // num_images
    orders = [_epoch_order(num_images, epoch, seed) for epoch in range(first, (stop - 1) // num_images + 1)]
    return torch.cat(orders)[start - first * num_images : stop - first * num_images]


@lru_cache(maxsize=4)
def _epoch_order(num_images, epoch, seed):
    return torch.randperm(num_images, generator=torch.Generator().manual_seed(seed_for("order", epoch, seed)))


def seed_for(stream: str, number: int, seed: int = 0) -> int:
    """The 32-bit seed for `number` (an epoch or a step, below 2³⁰) of one of `RANDOM_STREAMS`: no two share one."""
    number += 2**30 * RANDOM_STREAMS.index(stream)
    return (seed * 0x9E3779B1 + number * 0x85EBCA77 + 0x1B873593) % 2**32  # an odd factor: one to one
