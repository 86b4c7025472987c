"""Designs: the rows of Table 1 put together into a denoiser and its loss.

So far there is one column, EDM.
"""

from edm_lesson.losses import EDMLoss
from edm_lesson.networks import LessonUNet
from edm_lesson.preconditioning import EDMPrecond


def build_denoiser(config):
    """The untrained denoiser that a `Config` describes, on the CPU."""
    network = LessonUNet(config.data.img_resolution, config.data.img_channels, **vars(config.network))
    return EDMPrecond(network, config.sigma_data)


def build_loss(config):
    """The loss that a `Config` describes."""
    return EDMLoss(config.loss.P_mean, config.loss.P_std, config.sigma_data)
