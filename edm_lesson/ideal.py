"""What needs no training: exact denoisers for a finite data set and for a Gaussian, and the Gaussian's paths."""

from collections.abc import Callable

import torch
from torch import Tensor

from edm_lesson.checks import check_count, check_finite, check_images, check_number, checked, per_image, positive


def check_data(images: Tensor) -> None:
    """Refuse images that make no mean: none at all, NaN, infinity, other types and shapes."""
    check_images("images", images)
    check_count("len(images)", len(images))
    check_finite("images", images)


class IdealDenoiser:
    """The best denoiser for a finite set of images (N, C, H, W): their mean, weighted by likelihood (Eq. 57)."""

    @checked(check_data)
    def __init__(self, images: Tensor):
        self.images = images
        self.squared_norms = (images.flatten(1) ** 2).sum(1)
        self.img_channels, self.img_resolution = images.shape[1], images.shape[-1]

    @checked(lambda self, x: check_images("x", x, *self.images.shape[1:]))
    def weights(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """How much each of the N images counts for each of `x` (B, C, H, W): (B, N), rows sum to 1, in their dtype."""
        y, x = self.images.flatten(1), x.flatten(1).to(self.images.dtype)
        sigma = per_image(sigma, x).flatten(1)
        squared_distance = self.squared_norms - 2 * x @ y.T  # less |x|^2, the same for every image
        return torch.softmax(-squared_distance / (2 * sigma**2), dim=1)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The mean of the images that `x` (B, C, H, W) may have been; `sigma` is a number or (B,) (Eq. 57)."""
        return (self.weights(x, sigma) @ self.images.flatten(1)).reshape(x.shape).to(x.dtype)  # Eq. 57


class GaussianDenoiser:
    """The exact denoiser of independent pixels N(`mean`, `std`^2): D = (std^2 x + sigma^2 mean) / (std^2 + sigma^2)."""

    @checked(mean=check_number, std=positive)
    def __init__(self, mean: float = 0.0, std: float = 0.5):
        self.mean, self.std = mean, std

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """D(x; sigma) like `x` (B, C, H, W); `sigma` a number, (B,) or (B, 1, 1, 1)."""
        variance, noise = self.std**2, per_image(sigma, x) ** 2
        return (variance * x + noise * self.mean) / (variance + noise)

    def path(self, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Where the probability flow ODE takes `x` from `sigma` to `sigma_next`, exactly."""
        variance = self.std**2
        return self.mean + (x - self.mean) * ((variance + sigma_next**2) / (variance + sigma**2)) ** 0.5


class GaussianJump:
    """The start of the way without the network: as Gaussian data would go (Wang and Vastola 2024, arXiv 2412.09726).

    At high noise levels, mean and covariance are all that can be told of the data, and the paths of Gaussian data have
    a formula. `images` (N, C, H, W) are what both are taken of: the training images, or those of one class.
    """

    @checked(check_data)
    def __init__(self, images: Tensor):
        pixels = images.flatten(1)
        self.mean = pixels.mean(0).double().cpu()
        self.variances, self.axes = torch.linalg.eigh(pixels.T.cov().double().cpu())

    def __call__(self, latents: Tensor, sigma_max: float, sigma: float) -> Tensor:
        """`latents` (B, C, H, W) for any sampler's `sigma_max`, as latents for one that starts at `sigma` instead."""
        shrink = ((self.variances + sigma**2) / (self.variances + sigma_max**2)).sqrt()
        along = (sigma_max * latents.flatten(1).to(self.mean) - self.mean) @ self.axes  # each goes its own way
        x = self.mean + shrink * along @ self.axes.T
        return (x / sigma).reshape(latents.shape).to(latents)


def score(denoiser: Callable, x: Tensor, sigma: Tensor | float) -> Tensor:
    """The gradient of ln p(x; sigma) with respect to x: the direction towards likelier images (Eq. 3)."""
    return (denoiser(x, sigma) - x) / per_image(sigma, x) ** 2  # Eq. 3
