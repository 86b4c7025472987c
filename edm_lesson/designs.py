"""Designs: the rows of Table 1 put together into a denoiser, its loss and its sampler."""

from dataclasses import dataclass

from edm_lesson.augment import AugmentPipe
from edm_lesson.checks import check_choice
from edm_lesson.losses import DenoisingLoss, EDMLoss, IDDPMLoss, VELoss, VPLoss
from edm_lesson.networks import ADM, DDPMpp, LessonUNet, NCSNpp
from edm_lesson.preconditioning import EDMPrecond, IDDPMPrecond, Precond, VEPrecond, VPPrecond
from edm_lesson.samplers import edm_sampler, general_sampler


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

    def nfe(self, num_steps, solver=None):
        """How often `num_steps` steps of the design's sampler, or of another `solver`, ask the network."""
        return num_steps if (solver or self.sampler["solver"]) == "euler" else 2 * num_steps - 1


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


NETWORKS = {"lesson": LessonUNet, "ddpmpp": DDPMpp, "ncsnpp": NCSNpp, "adm": ADM}


def build_network(config):
    """The raw, untrained network that a `Config` describes; it takes augmentation labels where images are augmented."""
    settings = dict(vars(config.network))
    network = NETWORKS[settings.pop("name")]
    settings.pop("label_dropout" if network is LessonUNet else "patch_size")  # `config` lets no other values through
    augment_dim = AugmentPipe.label_dim if config.augment.p else 0
    return network(config.data.img_resolution, config.data.img_channels, augment_dim=augment_dim, **settings)


def build_denoiser(config):
    """The untrained denoiser that a `Config` describes, on the CPU."""
    column = config.design.preconditioning
    settings = {"sigma_data": config.sigma_data} if column == "edm" else {}
    return DESIGNS[column].build_denoiser(build_network(config), **settings)


def build_loss(config):
    """The loss that a `Config` describes."""
    column = config.design.loss
    settings = {**vars(config.loss), "sigma_data": config.sigma_data} if column == "edm" else {}
    return DESIGNS[column].build_loss(**settings)


def build_augment(config):
    """The augmentation that a `Config` describes: a function for the loss; None where there is none."""
    return AugmentPipe(**vars(config.augment)) if config.augment.p else None


def choose_sampler(column):
    """The sampler of a `column` of Table 1, such as `config.design.sampler`; called as `edm_sampler` is.

    Raises `ValueError` for a column that there is not.
    """
    check_choice("sampler", column, DESIGNS)
    return edm_sampler if column == "edm" else DESIGNS[column].sample
