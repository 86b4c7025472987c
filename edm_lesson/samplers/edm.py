"""EDM's sampler and its steps: from one noise level to the next, and back up a little (Algorithms 1 and 2)."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from edm_lesson.checks import check_churn, checked
from edm_lesson.samplers.prepare import Denoiser, clip_range, prepare
from edm_lesson.schedules import edm_sigmas


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
