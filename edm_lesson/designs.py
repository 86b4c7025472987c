"""Designs: the rows of Table 1 put together into a denoiser, its loss and its sampler."""

from dataclasses import dataclass

from edm_lesson.losses import DenoisingLoss, EDMLoss, IDDPMLoss, VELoss, VPLoss
from edm_lesson.networks import LessonUNet
from edm_lesson.preconditioning import EDMPrecond, IDDPMPrecond, Precond, VEPrecond, VPPrecond
from edm_lesson.samplers import general_sampler


@dataclass(frozen=True)
class Design:
    """A column of Table 1, or a mixture: `dataclasses.replace(DESIGNS["vp"], loss=DESIGNS["edm"].loss)`.

    `precond` and `loss` are classes, `sampler` the settings of `general_sampler` that make the column's own.
    """

    precond: type[Precond]
    loss: type[DenoisingLoss]
    sampler: dict

    def build_denoiser(self, network, **settings):
        """The denoiser around a raw `network`; `settings` such as sigma_data are those of `precond`."""
        return self.precond(network, **settings)

    def build_loss(self, **settings):
        """The loss to train it with; `settings` are those of `loss`."""
        return self.loss(**settings)

    def sample(self, denoiser, latents, class_labels=None, **settings):
        """Images like `latents` from any denoiser; `settings` of `general_sampler` come before the design's own."""
        return general_sampler(denoiser, latents, class_labels, **{**self.sampler, **settings})


DESIGNS = {
    "vp": Design(VPPrecond, VPLoss, {"solver": "euler", "discretization": "vp", "schedule": "vp", "scaling": "vp"}),
    "ve": Design(VEPrecond, VELoss, {"solver": "euler", "discretization": "ve", "schedule": "ve", "scaling": "none"}),
    "iddpm": Design(
        IDDPMPrecond, IDDPMLoss, {"solver": "euler", "discretization": "iddpm", "schedule": "linear", "scaling": "none"}
    ),
    "edm": Design(
        EDMPrecond, EDMLoss, {"solver": "heun", "discretization": "edm", "schedule": "linear", "scaling": "none"}
    ),
}


def build_denoiser(config):
    """The untrained denoiser that a `Config` describes, on the CPU."""
    network = LessonUNet(config.data.img_resolution, config.data.img_channels, **vars(config.network))
    return EDMPrecond(network, config.sigma_data)


def build_loss(config):
    """The loss that a `Config` describes."""
    return EDMLoss(config.loss.P_mean, config.loss.P_std, config.sigma_data)
