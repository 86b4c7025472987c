"""Checks of notebook 01: taken for another, predicted noise, doubt."""

import torch

from edm_lesson.exercises import compare, exercise
from edm_lesson.ideal import GaussianDenoiser, IdealDenoiser


@exercise("01.1")
def taken_for_another(attempt):
    def solution(y, other, sigma):
        return torch.special.ndtr(-(y - other).norm() / (2 * sigma))

    mistakes = [
        (
            lambda y, other, sigma: torch.special.ndtr(-(y - other).norm() / sigma),
            "You ask noise to carry y all the way to the other image. Halfway is enough to be nearer to it.",
        ),
        (
            lambda y, other, sigma: torch.special.ndtr((y - other).norm() / (2 * sigma)),
            "That is the probability that y is still nearer to itself; its complement is asked for.",
        ),
        (
            lambda y, other, sigma: torch.special.ndtr(-((y - other) ** 2).mean().sqrt() / (2 * sigma)),
            "Your answer depends on the number of pixels: the distance is the root of the *sum* of the squares, and of "
            "the noise only its part along the line counts, with standard deviation sigma.",
        ),
        (
            lambda y, other, sigma: torch.special.ndtr(-((y - other) ** 2).sum() / (2 * sigma)),
            "You take the squared distance; take its root.",
        ),
        (
            lambda y, other, sigma: torch.special.ndtr(-(y - other).norm() / (2 * sigma**2)),
            "You divide by sigma squared. Along the line to the other image, noise has the standard deviation sigma.",
        ),
    ]
    cases = []
    for size, ratio in [(1, 0.3), (5, 1.1), (28, 1.7)]:  # distances of 0.6, 2.2 and 3.4 sigma
        y, direction = torch.randn(1, size, size), torch.randn(1, size, size)
        sigma = 0.3 + 2 * torch.rand(()).item()
        cases.append((y, y + direction / direction.norm() * 2 * ratio * sigma, sigma))
    compare(attempt, solution, cases, mistakes)


@exercise("01.2")
def the_third_way_to_say_it(attempt):
    def solution(denoiser, x, sigma):
        return (x - denoiser(x, sigma)) / sigma

    mistakes = [
        (
            lambda denoiser, x, sigma: (denoiser(x, sigma) - x) / sigma,
            "The sign is wrong: noise leads from the clean image to x, so it is x less the answer.",
        ),
        (
            lambda denoiser, x, sigma: (denoiser(x, sigma) - x) / sigma**2,
            "That is the score. The noise has the opposite sign, and is divided by sigma only.",
        ),
        (
            lambda denoiser, x, sigma: (x - denoiser(x, sigma)) / sigma**2,
            "You divide by sigma squared, as the score does. x is y + sigma * n, with sigma to the first power.",
        ),
        (
            lambda denoiser, x, sigma: x - denoiser(x, sigma),
            "That is sigma * n, the noise as it was added. The n that is asked for has standard deviation 1.",
        ),
    ]
    cases = [
        (GaussianDenoiser(-0.7, 0.6), torch.randn(4, 1, 3, 3), 0.5 + torch.rand(()).item() / 4),
        (IdealDenoiser(torch.randn(6, 1, 2, 2)), 2 * torch.randn(5, 1, 2, 2), 1.5 + torch.rand(()).item()),
    ]
    compare(attempt, solution, cases, mistakes)


@exercise("01.3")
def doubt(attempt):
    def moments(weights, images):
        flat = images.flatten(1)
        return weights @ flat, weights @ flat**2, (len(weights), *images.shape[1:])

    def solution(weights, images):
        mean, square, shape = moments(weights, images)
        return (square - mean**2).clamp(min=0).sqrt().reshape(shape)

    def variance(weights, images):
        mean, square, shape = moments(weights, images)
        return (square - mean**2).reshape(shape)

    def not_centered(weights, images):
        _, square, shape = moments(weights, images)
        return square.sqrt().reshape(shape)

    def unweighted(weights, images):
        return images.std(0, correction=0).expand(len(weights), *images.shape[1:])

    def sample(weights, images):
        return images.std(0).expand(len(weights), *images.shape[1:])

    mistakes = [
        (variance, "That is the variance; the standard deviation is its root."),
        (not_centered, "You take the root of the mean of the squares, without subtracting the square of the mean."),
        (unweighted, "You count every image alike; each has to count by its weight."),
        (sample, "You count every image alike; each has to count by its weight."),
        (
            lambda weights, images: solution(weights, images).flatten(1),
            "The values are right, but as rows; reshape them to images (B, C, H, W).",
        ),
    ]
    cases = [
        (torch.randn(batch, count).softmax(1), torch.randn(count, channels, 4, 5))
        for batch, count, channels in [(2, 6, 1), (3, 20, 3)]
    ]
    compare(attempt, solution, cases, mistakes, tolerance=1e-3)
