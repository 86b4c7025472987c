"""Sampling: steps down the noise levels, from pure noise to images, with any `Denoiser`."""

from edm_lesson.samplers.edm import Denoiser, add_churn, clip_range, edm_sampler, euler_step, heun_step, prepare
from edm_lesson.samplers.general import general_sampler
from edm_lesson.samplers.images import SeededNoise, sample_images
from edm_lesson.samplers.multistep import dpmpp_2m_sampler
