"""The steps that samplers are made of (Algorithms 1 and 2): from one noise level to the next, and back up a little."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from edm_lesson.samplers.prepare import Denoiser


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
