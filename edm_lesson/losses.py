"""The training loss: which noise levels to train on, and how much each counts (Table 1, "training").

The loss is E[lambda(sigma) * ||D(y + n; sigma) - y||^2] with n ~ N(0, sigma^2) (Eq. 2, weighted by lambda).
"""

import torch

from edm_lesson.checks import check_images, check_levels, check_number
from edm_lesson.schedules import VPSchedule, iddpm_table


class DenoisingLoss:
    """The weighted squared error of a denoiser (Eq. 2). A design adds `sample_sigma` and `weight`."""

    def __call__(self, denoiser, images, class_labels=None, augment=None, generator=None):
        """The weighted squared error of every pixel, (B, C, H, W): take its mean (Eq. 2).

        `images` (B, C, H, W), clean; `class_labels` as the denoiser takes them; `augment` maps images to
        (images, augment_labels); `generator` draws sigma and noise, on the images' device.
        """
        check_images(images, name="images")
        images, augment_labels = augment(images) if augment else (images, None)
        sigma = self.sample_sigma(len(images), generator, images.device).reshape(-1, 1, 1, 1)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        denoised = denoiser(images + sigma * noise, sigma, class_labels, augment_labels)
        return self.weight(sigma) * (denoised - images) ** 2  # Eq. 2, weighted


class EDMLoss(DenoisingLoss):
    """EDM's loss: ln sigma ~ N(P_mean, P_std^2), weighted so that every level starts at loss 1 (Table 1, EDM).

    `sigma_data` must be the denoiser's. Raises `ValueError` where `P_std` <= 0 or `sigma_data` is not in [1e-6, 1e6].
    """

    def __init__(self, P_mean=-1.2, P_std=1.2, sigma_data=0.5):
        check_number("P_mean", P_mean)
        check_number("P_std", P_std, above=0)
        check_number("sigma_data", sigma_data, at_least=1e-6, at_most=1e6)
        self.P_mean, self.P_std, self.sigma_data = P_mean, P_std, sigma_data

    def sample_sigma(self, batch, generator=None, device=None):
        """Noise levels to train `batch` images on, float32 (`batch`,) on `device` (Table 1, EDM)."""
        return (self.P_mean + self.P_std * torch.randn(batch, generator=generator, device=device)).exp()

    def weight(self, sigma):
        """lambda(sigma), shaped like `sigma`: the inverse of c_out squared (Table 1, EDM)."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


class InverseSquareLoss(DenoisingLoss):
    """The weight of the designs before EDM; theirs, too, is the inverse of c_out squared (Table 1)."""

    def weight(self, sigma):
        """lambda(sigma), shaped like `sigma` (Table 1: VP, VE, iDDPM)."""
        return 1 / sigma**2


class VPLoss(InverseSquareLoss):
    """DDPM++'s loss: times drawn evenly from `epsilon_t` to 1 (Table 1, VP). The rest is as in `VPSchedule`."""

    def __init__(self, beta_d=19.9, beta_min=0.1, epsilon_t=1e-5):
        self.schedule, self.epsilon_t = VPSchedule(beta_d, beta_min), epsilon_t
        check_number("epsilon_t", epsilon_t, above=0, at_most=0.999)

    def sample_sigma(self, batch, generator=None, device=None):
        """Noise levels to train `batch` images on, float32 (`batch`,) on `device` (Table 1, VP)."""
        return self.schedule.sigma(1 + (self.epsilon_t - 1) * torch.rand(batch, generator=generator, device=device))


class VELoss(InverseSquareLoss):
    """NCSN++'s loss: ln sigma drawn evenly from `sigma_min` to `sigma_max` (Table 1, VE)."""

    def __init__(self, sigma_min=0.02, sigma_max=100.0):
        check_levels(2, sigma_min, sigma_max)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def sample_sigma(self, batch, generator=None, device=None):
        """Noise levels to train `batch` images on, float32 (`batch`,) on `device` (Table 1, VE)."""
        ratio = self.sigma_max / self.sigma_min
        return self.sigma_min * ratio ** torch.rand(batch, generator=generator, device=device)


class IDDPMLoss(InverseSquareLoss):
    """iDDPM's loss: levels drawn evenly from its table (`iddpm_table`) (Table 1, iDDPM).

    Learned variances are not trained: iDDPM has a variational term for them, which this is without.
    """

    def __init__(self, C_1=0.001, C_2=0.008, M=1000):
        self.u = iddpm_table(C_1, C_2, M)[:-1].float()

    def sample_sigma(self, batch, generator=None, device=None):
        """Noise levels to train `batch` images on, float32 (`batch`,) on `device` (Table 1, iDDPM)."""
        self.u = self.u.to(device)  # stays there: only the first batch has to wait for it
        return self.u[torch.randint(len(self.u), (batch,), generator=generator, device=device)]
