"""Designs: the rows of Table 1 put together into a denoiser, its loss and its sampler."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from edm_lesson import schedules
from edm_lesson.augment import AugmentPipe
from edm_lesson.losses import DenoisingLoss, EDMLoss, IDDPMLoss, VELoss, VPLoss
from edm_lesson.networks import ADM, DDPMpp, LessonUNet, NCSNpp
from edm_lesson.preconditioning import Centered, EDMPrecond, IDDPMPrecond, Precond, VEPrecond, VPPrecond
from edm_lesson.samplers import Denoiser, clip_range, dpmpp_2m_sampler, general_sampler
from edm_lesson.schedules import LinearSchedule, VESchedule, VPSchedule, unscaled, vp_scale


@dataclass(frozen=True)
class Design:
    """A column of Table 1, or a mixture: `dataclasses.replace(DESIGNS["vp"], loss=DESIGNS["edm"].loss)`.

    `levels(num_steps, sigma_min, sigma_max)` and the class `schedule`, by its `from_range(sigma_min, sigma_max)`, fit
    any range of noise levels; the design's own is `sigma_min` to `sigma_max`.
    """

    precond: type[Precond]
    loss: type[DenoisingLoss]
    solver: str
    levels: Callable
    schedule: type[LinearSchedule]
    scale: Callable
    sigma_min: float
    sigma_max: float

    def rows(self, denoiser: Denoiser, num_steps: int = 18, **settings: float) -> dict:
        """What makes `general_sampler` the design's, within the range of noise levels that the denoiser knows.

        `settings`: other `sigma_min` and `sigma_max` than the design's own, and what its levels take, such as `rho`.
        """
        wanted = (settings.pop(name, getattr(self, name)) for name in ("sigma_min", "sigma_max"))
        span = clip_range(denoiser, *wanted)
        fitted = {"levels": self.levels(num_steps, *span, **settings), "schedule": self.schedule.from_range(*span)}
        return fitted | {"scale": self.scale, "solver": self.solver}

    def sample(
        self, denoiser: Denoiser, latents: Tensor, class_labels: Tensor | None = None, **settings: Any
    ) -> Tensor:
        """Images like `latents`; called as `edm_sampler`, with other `settings` of `rows` and of `general_sampler`."""
        own = {name: settings.pop(name) for name in ("num_steps", "sigma_min", "sigma_max", "rho") if name in settings}
        return general_sampler(denoiser, latents, class_labels, **self.rows(denoiser, **own) | settings)

    def nfe(self, num_steps: int, solver: str | None = None) -> int:
        """How often `num_steps` steps of the design's sampler, or of another `solver`, ask the network."""
        return 2 * num_steps - 1 if (solver or self.solver) == "heun" else num_steps


class Multistep(Design):
    """A design whose sampler is `dpmpp_2m_sampler`, with EDM's levels; it takes no other solver, and no churn."""

    def sample(
        self, denoiser: Denoiser, latents: Tensor, class_labels: Tensor | None = None, **settings: Any
    ) -> Tensor:
        if settings.pop("S_churn", 0) or settings.pop("solver", self.solver) != self.solver:
            raise ValueError("dpmpp_2m takes neither S_churn nor another solver; leave them out, or take edm.")
        for name in ("S_min", "S_max", "S_noise", "randn_like"):  # which say what churn would be like
            settings.pop(name, None)
        return dpmpp_2m_sampler(denoiser, latents, class_labels, **settings)


VP_RANGE = VPSchedule().sigma(1e-3).item(), VPSchedule().sigma(1).item()  # from epsilon_s to time 1
DESIGNS = {
    "vp": Design(VPPrecond, VPLoss, "euler", schedules.vp_levels, VPSchedule, vp_scale, *VP_RANGE),
    "ve": Design(VEPrecond, VELoss, "euler", schedules.ve_sigmas, VESchedule, unscaled, 0.02, 100.0),
    "iddpm": Design(IDDPMPrecond, IDDPMLoss, "euler", schedules.iddpm_sigmas, LinearSchedule, unscaled, 0.002, 81.0),
    "edm": Design(EDMPrecond, EDMLoss, "heun", schedules.edm_sigmas, LinearSchedule, unscaled, 0.002, 80.0),
}
MULTISTEP = Multistep(EDMPrecond, EDMLoss, "dpmpp_2m", schedules.edm_sigmas, LinearSchedule, unscaled, 0.05, 80.0)
SAMPLERS = DESIGNS | {"dpmpp_2m": MULTISTEP}
NETWORKS = {"lesson": LessonUNet, "ddpmpp": DDPMpp, "ncsnpp": NCSNpp, "adm": ADM}


def build_network(config: Any) -> Module:
    """The raw, untrained network that a `Config` describes; it takes augmentation labels where images are augmented."""
    settings = dict(vars(config.network))
    network = NETWORKS[settings.pop("name")]
    augment_dim = AugmentPipe.label_dim if config.augment.p else 0
    return network(config.data.img_resolution, config.data.img_channels, augment_dim=augment_dim, **settings)


def parameters_at_least(config: Any) -> int:
    """A lower bound, about half, of how many parameters the network of a `Config` has; nothing is built."""
    network = config.network
    blocks = 36 * network.num_blocks * sum((network.model_channels * mult) ** 2 for mult in network.channel_mult)
    return blocks + network.model_channels * (network.label_dim + config.data.img_channels * network.patch_size**2)


def build_denoiser(config: Any) -> Precond | Centered:
    """The untrained denoiser that a `Config` describes, on the CPU; where it takes a mean off, that is still 0."""
    column = config.design.preconditioning
    settings = {"sigma_data": config.sigma_data} if column == "edm" else {}
    denoiser = DESIGNS[column].precond(build_network(config), **settings)
    return Centered(denoiser, torch.zeros(config.data.img_channels, 1, 1)) if config.data.center else denoiser


def build_loss(config: Any) -> DenoisingLoss:
    """The loss that a `Config` describes."""
    column = config.design.loss
    settings = {**vars(config.loss), "sigma_data": config.sigma_data} if column == "edm" else {}
    return DESIGNS[column].loss(**settings)
