"""Sampling: steps down the noise levels, from pure noise to an image.

A denoiser is anything that maps (x, sigma) to an estimate of the clean images. `sigma` is a number here.
"""

from edm_lesson.samplers.edm import add_churn, edm_sampler, euler_step, heun_step
from edm_lesson.samplers.general import general_sampler
from edm_lesson.samplers.images import SeededNoise, sample_images

__all__ = [
    "SeededNoise",
    "add_churn",
    "edm_sampler",
    "euler_step",
    "general_sampler",
    "heun_step",
    "sample_images",
]
