"""The training loss: which noise levels to train on, and how much each counts (Table 1, "training").

The loss is E[lambda(sigma) * ||D(y + n; sigma) - y||^2] with n ~ N(0, sigma^2) (Eq. 2, weighted by lambda).
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.types import Device

from edm_lesson.checks import check_images, check_levels, check_number, checked, fraction, positive
from edm_lesson.schedules import VPSchedule, iddpm_table


class DenoisingLoss:
    """The weighted squared error of a denoiser (Eq. 2). A design adds `sample_sigma` and `weight`."""

    sample_sigma: Callable[..., Tensor]  # (batch, generator, device) -> noise levels to train on, float32 (batch,)
    weight: Callable[[Tensor], Tensor]  # sigma -> lambda(sigma), shaped like it

    @checked(images=check_images)
    def __call__(
        self, denoiser: Callable, images: Tensor, class_labels: Tensor | None = None,
        augment: Callable | None = None, generator: Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """The weighted squared error of every pixel, (B, C, H, W): take its mean (Eq. 2).

        `images` (B, C, H, W), clean; `class_labels` as the denoiser takes them; `augment` maps images and `generator`
        to (images, augment_labels); `generator` draws sigma, augmentation and noise, on the images' device.
        """
        sigma = self.sample_sigma(len(images), generator, images.device).reshape(-1, 1, 1, 1)
        images, augment_labels = augment(images, generator) if augment else (images, None)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        denoised = denoiser(images + sigma * noise, sigma, class_labels, augment_labels)
        return self.weight(sigma) * (denoised - images) ** 2  # Eq. 2, weighted


class EDMLoss(DenoisingLoss):
    """EDM's: ln sigma ~ N(P_mean, P_std^2); every level starts at loss 1 with the denoiser's `sigma_data` (Table 1)."""

    @checked(P_mean=check_number, P_std=positive, sigma_data=positive)
    def __init__(self, P_mean: float = -1.2, P_std: float = 1.2, sigma_data: float = 0.5):
        self.P_mean, self.P_std, self.sigma_data = P_mean, P_std, sigma_data

    def sample_sigma(self, batch: int, generator: Generator | None = None, device: Device = None) -> Tensor:
        """Noise levels to train `batch` images on, float32 (`batch`,) on `device` (Table 1, EDM)."""
        return (self.P_mean + self.P_std * torch.randn(batch, generator=generator, device=device)).exp()

    def weight(self, sigma: Tensor) -> Tensor:
        """lambda(sigma), shaped like `sigma`: the inverse of c_out squared (Table 1, EDM)."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


class InverseSquareLoss(DenoisingLoss):
    """The weight of the designs before EDM; theirs, too, is the inverse of c_out squared (Table 1)."""

    def weight(self, sigma: Tensor) -> Tensor:
        return 1 / sigma**2


class VPLoss(InverseSquareLoss):
    """DDPM++'s loss: times drawn evenly from `epsilon_t` to 1 (Table 1, VP). The rest is as in `VPSchedule`."""

    @checked(epsilon_t=fraction)
    def __init__(self, beta_d: float = 19.9, beta_min: float = 0.1, epsilon_t: float = 1e-5):
        self.schedule, self.epsilon_t = VPSchedule(beta_d, beta_min), epsilon_t

    def sample_sigma(self, batch: int, generator: Generator | None = None, device: Device = None) -> Tensor:
        return self.schedule.sigma(1 + (self.epsilon_t - 1) * torch.rand(batch, generator=generator, device=device))


class VELoss(InverseSquareLoss):
    """NCSN++'s loss: ln sigma drawn evenly from `sigma_min` to `sigma_max` (Table 1, VE)."""

    @checked(check_levels)
    def __init__(self, sigma_min: float = 0.02, sigma_max: float = 100.0):
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def sample_sigma(self, batch: int, generator: Generator | None = None, device: Device = None) -> Tensor:
        ratio = self.sigma_max / self.sigma_min
        return self.sigma_min * ratio ** torch.rand(batch, generator=generator, device=device)


class IDDPMLoss(InverseSquareLoss):
    """iDDPM's loss: levels drawn evenly from `iddpm_table` (Table 1); without the term that learns variances."""

    def __init__(self, C_1: float = 0.001, C_2: float = 0.008, M: int = 1000):
        self.u = iddpm_table(C_1, C_2, M)[:-1].float()

    def sample_sigma(self, batch: int, generator: Generator | None = None, device: Device = None) -> Tensor:
        self.u = self.u.to(device)  # stays there: only the first batch has to wait for it
        return self.u[torch.randint(len(self.u), (batch,), generator=generator, device=device)]
