"""Sampling: steps down the noise levels, from pure noise to images, with any `Denoiser`."""

from edm_lesson.samplers.edm import add_churn, edm_sampler, euler_step, heun_step
from edm_lesson.samplers.general import general_sampler
from edm_lesson.samplers.images import SeededNoise, sample_images
from edm_lesson.samplers.multistep import dpmpp_2m_sampler
from edm_lesson.samplers.prepare import Denoiser, clip_range
