"""The general sampler: levels, schedule, scale and solver of any column of Table 1, in any combination (Eq. 4)."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from edm_lesson.checks import check_choice, check_churn, check_number, checked
from edm_lesson.samplers.edm import Denoiser, add_churn, prepare
from edm_lesson.schedules import LinearSchedule


def ode_slope(
    denoiser: Denoiser, schedule: LinearSchedule, scale: Callable, x: Tensor, t: float
) -> tuple[Tensor, Tensor]:
    """dx/dt of the probability flow ODE at time `t`, and D(x / s; sigma), by one denoiser evaluation (Eq. 4)."""
    sigma, sigma_deriv = schedule.sigma(t).item(), schedule.sigma_deriv(t).item()
    s, s_by_sigma = scale(sigma)
    s_deriv = s_by_sigma * sigma_deriv
    denoised = denoiser(x / s, sigma)
    return (sigma_deriv / sigma + s_deriv / s) * x - sigma_deriv * s / sigma * denoised, denoised  # Eq. 4


@checked(solver=partial(check_choice, choices=("euler", "heun")), alpha=partial(check_number, at_least=0.01, at_most=1))
def solver_step(
    slope: Callable, x: Tensor, t: float, t_next: float, solver: str = "heun", alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One step along `slope(x, t)` from time `t` to `t_next`: the new x, and D at the start.

    "heun" takes a second slope at `alpha` of the way, and a mean of the two such that the error is of second order;
    not where `t_next` is 0, where the slope is not defined and Euler's step stands. "euler" always leaves it at that.
    """
    h = t_next - t
    d, denoised = slope(x, t)
    if solver == "heun" and t_next > 0:
        d_next, _ = slope(x + alpha * h * d, (1 - alpha) * t + alpha * t_next)
        d = (1 - 1 / (2 * alpha)) * d + 1 / (2 * alpha) * d_next
    return x + h * d, denoised


@checked(check_churn)
@torch.no_grad()
def general_sampler(
    denoiser: Denoiser, latents: Tensor, class_labels: Tensor | None = None, *,
    levels: Tensor, schedule: LinearSchedule, scale: Callable, solver: str = "heun", alpha: float = 1.0,
    S_churn: float = 0.0, S_min: float = 0.0, S_max: float = math.inf, S_noise: float = 1.0,
    randn_like: Callable = torch.randn_like, callback: Callable | None = None,
) -> Tensor:  # fmt: skip
    """A sampler out of any rows of Table 1; with `edm_sigmas`, `LinearSchedule()` and `unscaled` it is `edm_sampler`.

    Parameters
    ----------
    denoiser, latents, class_labels, S_churn, S_min, S_max, S_noise, randn_like : as in `edm_sampler`.
    levels : where to stop, descending to 0, as `edm_sigmas(18)` returns them. What the denoiser doesn't know is
        replaced by the nearest level that it knows.
    schedule : sigma(t), such as `VPSchedule()`.
    scale : s and ds/dsigma as a function of sigma, such as `vp_scale`.
    solver : "euler", or "heun" for steps of second order.
    alpha : where a step of second order takes its second slope: 1 is Heun's method, 1/2 the midpoint method.
    callback : called at every step as `callback(step, sigma, z, denoised)`: the level that the step starts from
        (after churn), the images there, without their scale s, and D(z; sigma).

    As many denoiser evaluations as steps with "euler", twice as many minus one with "heun".
    """
    z, denoise, sigmas, round_sigma = prepare(denoiser, latents, class_labels, levels)
    slope = partial(ode_slope, denoise, schedule, scale)
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        z, sigma = add_churn(z, sigma, len(sigmas) - 1, S_churn, S_min, S_max, S_noise, randn_like, round_sigma)
        t = schedule.sigma_inv(sigma).item()
        t_next = schedule.sigma_inv(sigma_next).item() if sigma_next else 0.0
        x, denoised = solver_step(slope, scale(sigma)[0] * z, t, t_next, solver, alpha)
        if callback is not None:
            callback(step, sigma, z, denoised)
        z = x / scale(sigma_next)[0]
    return z.to(latents.dtype)
