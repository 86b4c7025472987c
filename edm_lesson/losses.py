"""The training loss: which noise levels to train on, and how much each counts (Table 1, "training").

The loss is E[lambda(sigma) * ||D(y + n; sigma) - y||^2] with n ~ N(0, sigma^2) (Eq. 2, weighted by lambda).
"""

import torch

from edm_lesson.checks import check_images, check_number


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
