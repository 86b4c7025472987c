"""EDM's sampler (Algorithms 1 and 2): how every sampler starts, the steps, and the whole."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from edm_lesson import checks
from edm_lesson.checks import checked
from edm_lesson.schedules import edm_sigmas


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


@checked(sigma_min=checks.positive, sigma_max=checks.positive)
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
    checks.check_images("latents", latents, getattr(denoiser, "img_channels", None))
    checks.check_finite("latents", latents, values=True)
    if class_labels is not None and hasattr(denoiser, "label_dim"):
        class_labels = checks.one_hot(class_labels, denoiser.label_dim, latents, values=True)
    labels = () if class_labels is None else (class_labels,)
    levels = levels.tolist()
    if len(levels) < 2 or levels[-1] != 0 or levels != sorted(levels, reverse=True):
        raise ValueError(f"levels are {levels}; they must descend, and end with 0.")
    levels = levels[:-1]
    clip_range(denoiser, levels[-1], levels[0])
    for level in (levels[-1], levels[0]):
        checks.per_image(level, latents)  # refuses what their dtype can't hold
    (lowest, highest), rounded = range_of(denoiser), getattr(denoiser, "round_sigma", float)

    def round_sigma(sigma: float) -> float:
        return float(rounded(torch.tensor(min(max(sigma, lowest), highest), dtype=torch.float64)))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        denoised = denoiser(x.to(latents.dtype), latents.new_full((len(x),), sigma), *labels)
        checks.check_answer(denoised, x, "denoiser")
        checks.check_finite(f"the denoiser's answer at sigma {sigma:g}", denoised)
        return denoised.to(x.dtype)

    sigmas = [*map(round_sigma, levels), 0.0]
    x = latents.to(torch.float32 if latents.device.type == "mps" else torch.float64) * sigmas[0]
    return x, denoise, sigmas, round_sigma


def euler_step(denoiser: Denoiser, x: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
    """One Euler step of the probability flow ODE from `sigma` to `sigma_next`: the new x, and D(x; sigma).

    The slope is dx/dsigma = (x - D) / sigma (Eq. 4 with sigma(t) = t and s(t) = 1). One denoiser evaluation.
    """
    denoised = denoiser(x, sigma)
    d = (x - denoised) / sigma  # Alg. 1, line 4
    return x + (sigma_next - sigma) * d, denoised  # Alg. 1, line 5


def heun_step(denoiser: Denoiser, x: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
    """One Heun step from `sigma` to `sigma_next`: the new x, and D(x; sigma) (Algorithm 1, lines 4 to 8).

    An Euler step, then the same step with the mean of the slopes at both ends. Two denoiser evaluations; one
    where `sigma_next` is 0, where the slope is not defined and Euler's step stands.
    """
    x_next, denoised = euler_step(denoiser, x, sigma, sigma_next)
    if sigma_next == 0:
        return x_next, denoised
    d = (x - denoised) / sigma
    d_next = (x_next - denoiser(x_next, sigma_next)) / sigma_next  # Alg. 1, line 7
    return x + (sigma_next - sigma) * (d + d_next) / 2, denoised  # Alg. 1, line 8


def add_churn(
    x: Tensor, sigma: float, num_steps: int, S_churn: float, S_min: float = 0.0, S_max: float = math.inf,
    S_noise: float = 1.0, randn_like: Callable = torch.randn_like, round_sigma: Callable = float,
) -> tuple[Tensor, float]:  # fmt: skip
    """Add fresh noise before a step, so that it starts a little higher (Algorithm 2, lines 4 to 6): new x and sigma.

    `S_churn` is spread over `num_steps` steps and acts only where `S_min` <= `sigma` <= `S_max`. `S_noise`
    scales the noise; `round_sigma` maps the raised level to one that the denoiser knows.
    """
    gamma = min(S_churn / num_steps, math.sqrt(2) - 1) if S_min <= sigma <= S_max else 0.0
    if gamma == 0:
        return x, sigma
    sigma_hat = round_sigma(sigma * (1 + gamma))  # Alg. 2, line 5
    added = math.sqrt(max(sigma_hat**2 - sigma**2, 0.0))
    return x + added * S_noise * randn_like(x), sigma_hat  # Alg. 2, line 6


@checked(checks.check_churn)
@torch.no_grad()
def edm_sampler(
    denoiser: Denoiser, latents: Tensor, class_labels: Tensor | None = None, *,
    num_steps: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0,
    S_churn: float = 0.0, S_min: float = 0.0, S_max: float = math.inf, S_noise: float = 1.0,
    randn_like: Callable = torch.randn_like, callback: Callable | None = None,
) -> Tensor:  # fmt: skip
    """EDM's stochastic sampler (Algorithm 2); with `S_churn` 0 the deterministic one (Algorithm 1).

    Parameters
    ----------
    denoiser : D(x; sigma), with class labels where they are given (`Denoiser`).
    latents : noise of unit variance, (B, C, H, W). The result has its shape, dtype and device.
    class_labels : as the denoiser takes them; None for none.
    num_steps, sigma_min, sigma_max, rho : the noise levels (`edm_sigmas`), clipped to the denoiser's own
        `sigma_min` and `sigma_max` and rounded by its `round_sigma`, where it has them.
    S_churn, S_min, S_max, S_noise : how much noise to add, where, and how strong (`add_churn`).
    randn_like : draws the noise of churn; see `SeededNoise` for one seed per image.
    callback : called at every step as `callback(step, sigma, x, denoised)`: the level that the step starts from
        (after churn), the images there and D(x; sigma).

    2 * num_steps - 1 denoiser evaluations.
    """
    sigmas = edm_sigmas(num_steps, *clip_range(denoiser, sigma_min, sigma_max), rho)
    x, denoise, sigmas, round_sigma = prepare(denoiser, latents, class_labels, sigmas)  # Alg. 2, line 2
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma = add_churn(x, sigma, num_steps, S_churn, S_min, S_max, S_noise, randn_like, round_sigma)
        x_next, denoised = heun_step(denoise, x, sigma, sigma_next)
        if callback is not None:
            callback(step, sigma, x, denoised)
        x = x_next
    return x.to(latents.dtype)
