"""DPM-Solver++(2M), the multistep sampler for few evaluations (Lu et al. 2022, arXiv 2211.01095)."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from edm_lesson.samplers.edm import Denoiser, clip_range, prepare
from edm_lesson.schedules import edm_sigmas


@torch.no_grad()
def dpmpp_2m_sampler(
    denoiser: Denoiser, latents: Tensor, class_labels: Tensor | None = None, *,
    num_steps: int = 8, sigma_min: float = 0.05, sigma_max: float = 80.0, rho: float = 7.0,
    callback: Callable | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2M): of second order, with one denoiser evaluation per step, `num_steps` in all.

    Each step goes as if D were constant: the value that the line through the last two answers has in the middle of the
    step, in ln sigma. The first step has one answer only, and is Euler's. The last step, to 0, takes D(x; sigma_min) as
    the image. That averages the noise away that is left, so `sigma_min` can be higher than in `edm_sampler`, whose
    parameters these are otherwise, and no steps are spent below it.
    """
    sigmas = edm_sigmas(num_steps, *clip_range(denoiser, sigma_min, sigma_max), rho)
    x, denoise, sigmas, _ = prepare(denoiser, latents, class_labels, sigmas)
    sigma_before, denoised_before = sigmas[0], x
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoised_middle = denoise(x, sigma)
        if callback is not None:
            callback(step, sigma, x, denoised)
        h_before = math.log(sigma_before / sigma)
        if h_before > 0 and sigma_next > 0:  # neither the first step nor the last
            h = math.log(sigma / sigma_next)
            denoised_middle = denoised + h / (2 * h_before) * (denoised - denoised_before)
        x = sigma_next / sigma * x + (1 - sigma_next / sigma) * denoised_middle
        sigma_before, denoised_before = sigma, denoised
    return x.to(latents.dtype)
