"""Sampling: steps down the noise levels, from pure noise to an image.

A denoiser is anything that maps (x, sigma) to an estimate of the clean images, shaped like x. The samplers call it with
`sigma` as a tensor (B,), one level an image, which it must accept (`sigma.reshape(-1, 1, 1, 1)` fits x); the steps call
it with the number that they are given.
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
