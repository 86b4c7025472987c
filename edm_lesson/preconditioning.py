"""Preconditioning: from the raw network F to the denoiser D (Eq. 7 and Table 1).

D(x; sigma) = c_skip * x + c_out * F(c_in * x; c_noise)
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from edm_lesson import checks
from edm_lesson.checks import check_answer, check_images, checked, one_hot, per_image
from edm_lesson.schedules import VPSchedule, iddpm_table


class Precond(nn.Module):
    """The denoiser D around a raw network F (Eq. 7). A design adds `coefficients(sigma)`: c_skip, c_out, c_in, c_noise.

    F is `network(x, c_noise, class_labels, augment_labels)`; its `img_channels`, `img_resolution` and `label_dim`
    are taken over where it has them. Samplers may ask for levels in [`sigma_min`, `sigma_max`].
    """

    def __init__(self, network: Callable, sigma_min: float = 0.0, sigma_max: float = math.inf):
        super().__init__()
        self.network, self.sigma_min, self.sigma_max = network, sigma_min, sigma_max
        self.img_channels = getattr(network, "img_channels", None)
        self.img_resolution = getattr(network, "img_resolution", None)
        self.label_dim = getattr(network, "label_dim", 0)

    @checked(lambda self, x: check_images("x", x, self.img_channels))
    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """The denoised images D(x; sigma), float32 (B, C, H, W) (Eq. 7).

        `x` (B, C, H, W); `sigma` a number, (B,) or (B, 1, 1, 1), positive; `class_labels` None, integers (B,) or
        one-hot (B, label_dim); `augment_labels` as the network takes them.
        """
        x = x.float()
        sigma = per_image(sigma, x)
        class_labels = one_hot(class_labels, self.label_dim, x)
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        F = self.network(c_in * x, c_noise.flatten(), class_labels, augment_labels)
        check_answer(F, x)
        return c_skip * x + c_out * F.float()  # Eq. 7

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """The nearest noise level that the network knows: `sigma` itself, where it knows them all."""
        return torch.as_tensor(sigma)


class EDMPrecond(Precond):
    """EDM's preconditioning: unit variance in, unit variance out, at every noise level (Table 1, EDM).

    `sigma_data` is the standard deviation (or RMS) of the training images, in their units; the rest is as in `Precond`.
    """

    @checked(sigma_data=checks.positive)
    def __init__(self, network: Callable, sigma_data: float = 0.5, sigma_min: float = 0.0, sigma_max: float = math.inf):
        super().__init__(network, sigma_min, sigma_max)
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise, each shaped like `sigma` (Table 1, EDM)."""
        total = (sigma**2 + self.sigma_data**2).sqrt()
        c_skip = self.sigma_data**2 / total**2
        c_out = sigma * self.sigma_data / total
        c_in = 1 / total
        c_noise = sigma.log() / 4
        return c_skip, c_out, c_in, c_noise


class VPPrecond(Precond):
    """DDPM++'s: the network is asked for the noise and told the time, 0 to `M` - 1 (Table 1, VP).

    `beta_d` and `beta_min` as in `VPSchedule`. Samplers may ask for the noise at the times from `epsilon_t` to 1.
    """

    @checked(M=checks.check_count, epsilon_t=checks.fraction)
    def __init__(
        self, network: Callable, beta_d: float = 19.9, beta_min: float = 0.1, M: int = 1000, epsilon_t: float = 1e-5
    ):
        schedule = VPSchedule(beta_d, beta_min)
        super().__init__(network, schedule.sigma(epsilon_t).item(), schedule.sigma(1).item())
        self.schedule, self.M = schedule, M

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        c_noise = (self.M - 1) * self.schedule.sigma_inv(sigma)
        return torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), c_noise


class VEPrecond(Precond):
    """NCSN++'s: the network is asked for minus the noise and sees its input unscaled (Table 1, VE)."""

    @checked(checks.check_levels)
    def __init__(self, network: Callable, sigma_min: float = 0.02, sigma_max: float = 100.0):
        super().__init__(network, sigma_min, sigma_max)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return torch.ones_like(sigma), sigma, torch.ones_like(sigma), (sigma / 2).log()


class IDDPMPrecond(Precond):
    """iDDPM's: the network is asked for the noise and told how far down a table of `M` levels it is (Table 1, iDDPM).

    `C_1`, `C_2` and `M` make `iddpm_table`; levels in between are told as the nearest of it.
    """

    def __init__(self, network: Callable, C_1: float = 0.001, C_2: float = 0.008, M: int = 1000):
        levels = iddpm_table(C_1, C_2, M)[:-1]  # u_M = 0 is without noise
        super().__init__(network, levels[-1].item(), levels[0].item())
        self.levels = levels  # exact, on the CPU: for samplers
        self.register_buffer("u", levels.float(), persistent=False)  # where the network is

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        c_noise = len(self.u) - 1 - nearest_index(self.u, sigma)
        return torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), c_noise.to(sigma.dtype)

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """The level of the table that is nearest to each of `sigma`."""
        sigma = torch.as_tensor(sigma)
        levels = self.levels.to(sigma.device, torch.promote_types(sigma.dtype, torch.float32))
        return levels[nearest_index(levels, sigma)]


class Centered(nn.Module):
    """A denoiser of images around 0 made one of images around `mean`: D(x; sigma) = D0(x - mean; sigma) + mean.

    `denoiser` is D0; `mean`, a number or one per channel (C, 1, 1), is a buffer and travels with the weights.
    """

    def __init__(self, denoiser: nn.Module, mean: Tensor | float):
        super().__init__()
        self.denoiser = denoiser
        self.sigma_min, self.sigma_max, self.round_sigma = denoiser.sigma_min, denoiser.sigma_max, denoiser.round_sigma
        self.img_channels, self.img_resolution = denoiser.img_channels, denoiser.img_resolution
        self.label_dim = denoiser.label_dim
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).clone())

    @checked(lambda self, x: check_images("x", x, self.img_channels))
    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """The denoised images, float32 (B, C, H, W); all is as in `Precond.forward`."""
        return self.denoiser(x - self.mean, sigma, class_labels, augment_labels) + self.mean


def nearest_index(levels: Tensor, sigma: Tensor) -> Tensor:
    """For each of `sigma`, of any shape, the index of the nearest of `levels`."""
    return (levels - sigma[..., None]).abs().argmin(-1)
