"""EDM's sampler (Algorithm 2)."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from edm_lesson.checks import check_churn, checked
from edm_lesson.samplers.prepare import Denoiser, clip_range, prepare
from edm_lesson.samplers.steps import add_churn, heun_step
from edm_lesson.schedules import edm_sigmas


@checked(check_churn)
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
