"""Denoisers that need no training: the exact answers for a finite data set and for a Gaussian."""

import torch

from edm_lesson.checks import check_finite, check_images, check_number, check_sigma


class IdealDenoiser:
    """The best possible denoiser for a finite set of images: their mean, weighted by likelihood (Eq. 57).

    `images` (N, C, H, W), N >= 1, floating point. Raises `ValueError` for anything else, or values not finite.
    """

    def __init__(self, images):
        check_images(images, name="images", minimum=1)
        check_finite("images", images)
        self.images = images
        self.squared_norms = (images.flatten(1) ** 2).sum(1)
        self.img_channels, self.img_resolution = images.shape[1], images.shape[-1]

    def weights(self, x, sigma):
        """How much each of the N images counts for each of `x` (B, C, H, W): (B, N), rows sum to 1.

        In the dtype of the images. Raises `ValueError` where (C, H, W) is not theirs.
        """
        check_images(x, like=self.images)
        y, x = self.images.flatten(1), x.flatten(1).to(self.images.dtype)
        sigma = check_sigma(sigma, x).flatten(1)
        squared_distance = self.squared_norms - 2 * x @ y.T  # less |x|^2, the same for every image
        return torch.softmax(-squared_distance / (2 * sigma**2), dim=1)

    def __call__(self, x, sigma):
        """The mean of the images that `x` (B, C, H, W) may have been, like `x` (Eq. 57).

        `sigma` is a number, (B,) or (B, 1, 1, 1). Raises `ValueError` as `weights` does.
        """
        return (self.weights(x, sigma) @ self.images.flatten(1)).reshape(x.shape).to(x.dtype)  # Eq. 57


class GaussianDenoiser:
    """The exact denoiser of images whose pixels are independent N(`mean`, `std`^2).

    D = (std^2 x + sigma^2 mean) / (std^2 + sigma^2). Raises `ValueError` where `std` <= 0.
    """

    def __init__(self, mean=0.0, std=0.5):
        check_number("mean", mean)
        check_number("std", std, above=0)
        self.mean, self.std = mean, std

    def __call__(self, x, sigma):
        """D(x; sigma) like `x` (B, C, H, W); `sigma` a number, (B,) or (B, 1, 1, 1)."""
        variance, noise = self.std**2, check_sigma(sigma, x) ** 2
        return (variance * x + noise * self.mean) / (variance + noise)

    def path(self, x, sigma, sigma_next):
        """Where the probability flow ODE takes `x` from `sigma` to `sigma_next`, exactly."""
        variance = self.std**2
        return self.mean + (x - self.mean) * ((variance + sigma_next**2) / (variance + sigma**2)) ** 0.5


def score(denoiser, x, sigma):
    """The gradient of ln p(x; sigma) with respect to x: the direction towards likelier images (Eq. 3)."""
    return (denoiser(x, sigma) - x) / check_sigma(sigma, x) ** 2  # Eq. 3
