"""How every sampler starts: its input is looked at once, and the denoiser is asked only for what it knows."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from edm_lesson.checks import check_answer, check_finite, check_images, checked, one_hot, per_image, positive


class Denoiser(Protocol):
    """What samplers draw with: the estimate D(x; sigma) of the clean images, shaped like x (B, C, H, W).

    `sigma` is a number, (B,) or (B, 1, 1, 1): samplers hand it over as (B,), in the dtype of x, the steps as the number
    that they are given. `class_labels` are handed over only where a sampler was given some. Optional attributes:
    `sigma_min`, `sigma_max` and `round_sigma(sigma)`, the noise levels that it knows; `img_channels`; `label_dim`.
    """

    def __call__(self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None) -> Tensor: ...


def range_of(denoiser: Denoiser) -> tuple[float, float]:
    """The lowest and the highest noise level that the denoiser knows, where it says so; 0 and infinity elsewhere."""
    return float(getattr(denoiser, "sigma_min", 0.0)), float(getattr(denoiser, "sigma_max", math.inf))


@checked(sigma_min=positive, sigma_max=positive)
def clip_range(denoiser: Denoiser, sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """`sigma_min` and `sigma_max` within the range of the denoiser."""
    lowest, highest = range_of(denoiser)
    if sigma_min > highest or sigma_max < lowest:
        known = f"this denoiser knows only {lowest:g} to {highest:g}"
        raise ValueError(f"The sampler was asked for sigma from {sigma_min:g} to {sigma_max:g}, but {known}.")
    return max(sigma_min, lowest), min(sigma_max, highest)


def prepare(
    denoiser: Denoiser, latents: Tensor, class_labels: Tensor | None, levels: Tensor
) -> tuple[Tensor, Callable, list[float], Callable]:
    """What a sampler walks with, given noise `latents` (B, C, H, W) and the `levels` of its steps, descending to 0.

    Returns
    -------
    x : the latents at the first level, in float64, where small steps add up (in float32 on devices that have no other).
    denoise : D as a function of such an x and a number sigma; the denoiser itself is given the dtype of the latents.
    sigmas : the levels as a list of numbers, each but the last rounded by `round_sigma`.
    round_sigma : a function from a number to the nearest noise level that the denoiser knows.
    """
    check_images("latents", latents, getattr(denoiser, "img_channels", None))
    check_finite("latents", latents, values=True)
    if class_labels is not None and hasattr(denoiser, "label_dim"):
        class_labels = one_hot(class_labels, denoiser.label_dim, latents, values=True)
    labels = () if class_labels is None else (class_labels,)
    levels = levels.tolist()
    if len(levels) < 2 or levels[-1] != 0 or levels != sorted(levels, reverse=True):
        raise ValueError(f"levels are {levels}; they must descend, and end with 0.")
    levels = levels[:-1]
    clip_range(denoiser, levels[-1], levels[0])
    for level in (levels[-1], levels[0]):
        per_image(level, latents)  # refuses what their dtype can't hold
    (lowest, highest), rounded = range_of(denoiser), getattr(denoiser, "round_sigma", float)

    def round_sigma(sigma: float) -> float:
        return float(rounded(torch.tensor(min(max(sigma, lowest), highest), dtype=torch.float64)))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        denoised = denoiser(x.to(latents.dtype), latents.new_full((len(x),), sigma), *labels)
        check_answer(denoised, x, "denoiser")
        check_finite(f"the denoiser's answer at sigma {sigma:g}", denoised)
        return denoised.to(x.dtype)

    sigmas = [*map(round_sigma, levels), 0.0]
    x = latents.to(torch.float32 if latents.device.type == "mps" else torch.float64) * sigmas[0]
    return x, denoise, sigmas, round_sigma
