"""The general sampler: solver, time steps, schedule and scaling of any column of Table 1, in any combination.

The images move along x = s(t) (y + sigma(t) n), following the probability flow ODE (Eq. 4).
"""

import math
from functools import partial
from itertools import pairwise

import torch

from edm_lesson.checks import check_choice, check_churn, check_levels, check_number
from edm_lesson.samplers.common import clip_levels, level_rounding, prepare_denoiser, state_of
from edm_lesson.schedules import LinearSchedule, VESchedule, VPSchedule, edm_sigmas, iddpm_table, ve_sigmas

DISCRETIZATIONS = ("edm", "vp", "ve", "iddpm")


def default_range(discretization, epsilon_s=1e-3):
    """The sigma_min and sigma_max that go with the time steps of a design (Table 1, parameters).

    `discretization` is "edm", "vp", "ve" or "iddpm"; `ValueError` for another word.
    """
    check_choice("discretization", discretization, DISCRETIZATIONS)
    vp = VPSchedule()
    ranges = (0.002, 80.0), (vp.sigma(epsilon_s).item(), vp.sigma(1.0).item()), (0.02, 100.0), (0.002, 81.0)
    return dict(zip(DISCRETIZATIONS, ranges, strict=True))[discretization]


def time_steps(discretization, num_steps, sigma_min, sigma_max, rho=7.0, epsilon_s=1e-3, C_1=0.001, C_2=0.008, M=1000):
    """The levels from `sigma_max` down to `sigma_min`, spaced as a design does it: float64 (num_steps,) (Table 1).

    "edm", "vp", "ve" or "iddpm"; the last takes those of its table (`iddpm_table`) that lie in the range. Raises
    `ValueError` where there are fewer than `num_steps` of them, and for another word.
    """
    check_choice("discretization", discretization, DISCRETIZATIONS)
    if discretization == "edm":
        return edm_sigmas(num_steps, sigma_min, sigma_max, rho)[:-1]
    if discretization == "ve":
        return ve_sigmas(num_steps, sigma_min, sigma_max)[:-1]
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    if discretization == "vp":
        return VPSchedule.from_range(sigma_min, sigma_max, epsilon_s).sigma(1 + ramp * (epsilon_s - 1))
    u = iddpm_table(C_1, C_2, M)
    u = u[(u >= sigma_min) & (u <= sigma_max)]
    if num_steps > len(u):
        raise ValueError(
            f"num_steps is {num_steps}, but iDDPM's table has {len(u)} levels from {sigma_min:g} to {sigma_max:g}; "
            "take fewer steps or a wider range."
        )
    return u[(ramp * (len(u) - 1) + 0.5).floor().long()]


def scale(scaling, sigma):
    """The factor s at the noise level `sigma`, and ds/dsigma: 1, or what keeps the variance of x at 1 (Table 1).

    `scaling` is "none" or "vp"; `ValueError` for another word.
    """
    check_choice("scaling", scaling, ("none", "vp"))
    if scaling == "none":
        return 1.0, 0.0
    s = 1 / math.sqrt(sigma**2 + 1)
    return s, -sigma * s**3


def ode_slope(denoiser, schedule, scaling, x, t):
    """dx/dt of the probability flow ODE at time `t`, and D(x / s; sigma) (Eq. 4). One denoiser evaluation."""
    sigma, sigma_deriv = schedule.sigma(t).item(), schedule.sigma_deriv(t).item()
    s, s_by_sigma = scale(scaling, sigma)
    s_deriv = s_by_sigma * sigma_deriv
    denoised = denoiser(x / s, sigma)
    return (sigma_deriv / sigma + s_deriv / s) * x - sigma_deriv * s / sigma * denoised, denoised  # Eq. 4


def solver_step(slope, x, t, t_next, solver="heun", alpha=1.0):
    """One step along `slope(x, t)` from time `t` to `t_next`: the new x, and D at the start.

    "heun" takes a second slope at `alpha` of the way, and a mean of the two such that the error is of second order;
    not where `t_next` is 0, where the slope is not defined and Euler's step stands. "euler" always leaves it at that;
    `ValueError` for another word.
    """
    check_choice("solver", solver, ("euler", "heun"))
    h = t_next - t
    d, denoised = slope(x, t)
    if solver == "heun" and t_next > 0:
        d_next, _ = slope(x + alpha * h * d, (1 - alpha) * t + alpha * t_next)
        d = (1 - 1 / (2 * alpha)) * d + 1 / (2 * alpha) * d_next
    return x + h * d, denoised


@torch.no_grad()
def general_sampler(
    denoiser,
    latents,
    class_labels=None,
    *,
    solver="heun",
    discretization="edm",
    schedule="linear",
    scaling="none",
    alpha=1.0,
    num_steps=18,
    sigma_min=None,
    sigma_max=None,
    rho=7.0,
    epsilon_s=1e-3,
    C_1=0.001,
    C_2=0.008,
    M=1000,
    S_churn=0.0,
    S_min=0.0,
    S_max=math.inf,
    S_noise=1.0,
    randn_like=torch.randn_like,
    callback=None,
):
    """A sampler out of any rows of Table 1. With the defaults it is `edm_sampler`.

    Parameters
    ----------
    denoiser, latents, class_labels, num_steps, rho : as in `edm_sampler`; so are S_churn, S_min, S_max, S_noise and
        randn_like.
    solver : "euler", or "heun" for the second-order steps.
    discretization : which levels to stop at, "edm", "vp", "ve" or "iddpm" (`time_steps`).
    schedule : sigma(t), "linear", "vp" or "ve". VP's beta_d and beta_min follow from the range of sigma.
    scaling : s(t), "none" (1) or "vp" (1 / sqrt(sigma^2 + 1)).
    alpha : where a second-order step takes its second slope: 1 is Heun's method, 1/2 the midpoint method.
    sigma_min, sigma_max : None for those of the discretization: 0.002 to 80, 0.0105 to 152, 0.02 to 100 and 0.0064 to
        80.2. Clipped to the denoiser's own, and the levels rounded by its `round_sigma`, where it has them.
    epsilon_s : the time of VP's lowest level.
    C_1, C_2, M : make iDDPM's table of levels.
    callback : called at every step as `callback(step, sigma, x, denoised)`: the level that the step starts from
        (after churn), the images there, without their scale s, and D(x; sigma).

    num_steps denoiser evaluations with "euler", 2 * num_steps - 1 with "heun". Raises `ValueError` as `edm_sampler`
    does, for an unknown word, an `alpha` outside (0, 1], more steps than iDDPM's table has levels, and a range of sigma
    that VP's noise can't span.
    """
    check_choice("solver", solver, ("euler", "heun"))
    check_choice("discretization", discretization, DISCRETIZATIONS)
    check_choice("schedule", schedule, ("linear", "vp", "ve"))
    check_choice("scaling", scaling, ("none", "vp"))
    check_number("alpha", alpha, at_least=0.01, at_most=1)
    check_number("epsilon_s", epsilon_s, above=0, at_most=0.999)
    check_churn(S_churn, S_min, S_max, S_noise)
    lowest, highest = default_range(discretization, epsilon_s)
    sigma_min, sigma_max = lowest if sigma_min is None else sigma_min, highest if sigma_max is None else sigma_max
    check_levels(num_steps, sigma_min, sigma_max, rho)

    denoise = prepare_denoiser(denoiser, latents, class_labels)
    sigma_min, sigma_max = clip_levels(denoiser, sigma_min, sigma_max)
    round_sigma = level_rounding(denoiser)
    if schedule == "vp":
        process = VPSchedule.from_range(sigma_min, sigma_max, epsilon_s)
    else:
        process = {"linear": LinearSchedule, "ve": VESchedule}[schedule]()

    levels = time_steps(discretization, num_steps, sigma_min, sigma_max, rho, epsilon_s, C_1, C_2, M)
    sigmas = [round_sigma(sigma) for sigma in levels.tolist()] + [0.0]
    slope = partial(ode_slope, denoise, process, scaling)

    x = state_of(latents) * sigmas[0] * scale(scaling, sigmas[0])[0]
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        gamma = min(S_churn / num_steps, math.sqrt(2) - 1) if S_min <= sigma <= S_max else 0.0
        if gamma > 0:
            sigma_hat = round_sigma(sigma + gamma * sigma)
            (s, _), (s_hat, _) = scale(scaling, sigma), scale(scaling, sigma_hat)
            added = math.sqrt(max(sigma_hat**2 - sigma**2, 0.0))
            x, sigma = s_hat / s * x + added * s_hat * S_noise * randn_like(x), sigma_hat
        t = process.sigma_inv(sigma).item()
        t_next = process.sigma_inv(sigma_next).item() if sigma_next else 0.0
        x_next, denoised = solver_step(slope, x, t, t_next, solver, alpha)
        if callback is not None:
            callback(step, sigma, x / scale(scaling, sigma)[0], denoised)
        x = x_next
    return x.to(latents.dtype)
