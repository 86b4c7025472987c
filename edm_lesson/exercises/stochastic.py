"""Exercises of notebook 08: fresh noise on the way."""

import math

import torch

from edm_lesson.exercises import compare, exercise
from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.samplers import edm_sampler


def some_gaussian():
    """A Gaussian denoiser with random mean and standard deviation."""
    return GaussianDenoiser(torch.randn(()).item(), 0.3 + torch.rand(()).item())


@exercise("08.1")
def largest_churn(attempt):
    compare(
        attempt,
        lambda num_steps: num_steps * (math.sqrt(2) - 1),
        [(number,) for number in torch.randint(2, 300, (4,)).tolist()],
        [
            (
                lambda num_steps: num_steps * math.sqrt(2),
                "gamma is at most √2 − 1: the level rises to √2 times what it was, so by √2 − 1 of it.",
            ),
            (
                lambda num_steps: math.sqrt(2) - 1,
                "That is the largest gamma of one step; S_churn is divided by the number of steps to give it.",
            ),
            (
                lambda num_steps: (math.sqrt(2) - 1) / num_steps,
                "You divide by the number of steps; S_churn / num_steps is gamma, so multiply to come back.",
            ),
        ],
        tolerance=5e-3,
    )


@exercise("08.2")
def ancestral(attempt):
    def family(share, strength, guess=True):
        def step(denoiser, x, sigma, sigma_next, noise):
            keep = share(sigma, sigma_next)
            denoised = denoiser(x, sigma)
            kept = denoised + keep * (x - denoised) if guess else keep * x
            return kept + strength(sigma, sigma_next, keep) * noise

        return step

    def squared(sigma, sigma_next):
        return (sigma_next / sigma) ** 2

    def filled(sigma, sigma_next, keep):
        return math.sqrt(max(sigma_next**2 - (keep * sigma) ** 2, 0.0))

    cases = []
    for number in range(6):
        x, noise = torch.randn(2, 2, 1, 3, 3)
        sigma = 0.3 + 4 * torch.rand(()).item()
        sigma_next = 0.0 if number == 5 else sigma * (0.2 + 0.6 * torch.rand(()).item())
        cases.append((some_gaussian(), sigma * x, sigma, sigma_next, noise))
    compare(
        attempt,
        family(squared, filled),
        cases,
        [
            (
                family(squared, lambda sigma, sigma_next, keep: sigma_next - keep * sigma),
                "You fill up with sigma_next - k sigma, but strengths don't add up: subtract the variances, then "
                "take the root.",
            ),
            (
                family(squared, lambda sigma, sigma_next, keep: sigma_next**2 - (keep * sigma) ** 2),
                "You add noise as strong as its variance should be: take the square root.",
            ),
            (
                family(squared, lambda sigma, sigma_next, keep: sigma_next),
                "You add noise of strength sigma_next on top of what you keep; together that is too much.",
            ),
            (
                family(squared, lambda sigma, sigma_next, keep: math.sqrt(sigma**2 - sigma_next**2)),
                "√(sigma² − sigma_next²) is what lies between the two levels. Here the noise has to fill up what is "
                "kept, k sigma, to sigma_next.",
            ),
            (
                family(lambda sigma, sigma_next: sigma_next / sigma, filled),
                "You keep the share sigma_next / sigma, as Euler does, and no fresh noise fits in; DDPM keeps its "
                "square.",
            ),
            (
                family(squared, lambda sigma, sigma_next, keep: 0.0),
                "No fresh noise is added, so the image arrives below sigma_next.",
            ),
            (
                family(squared, filled, guess=False),
                "What is kept is a share of the noise, x − D; the guess D itself stays whole.",
            ),
        ],
    )


@exercise("08.3")
def variations(attempt):
    def from_latents(latents, sigma_max=lambda sigma: sigma):
        return lambda denoiser, images, noise, sigma: edm_sampler(
            denoiser, latents(images, noise, sigma), sigma_max=sigma_max(sigma)
        )

    cases = []
    for _ in range(3):
        images, noise = torch.randn(2, 2, 1, 3, 3)
        cases.append((some_gaussian(), images, noise, 0.3 + 4 * torch.rand(()).item()))
    compare(
        attempt,
        from_latents(lambda images, noise, sigma: images / sigma + noise),
        cases,
        [
            (
                from_latents(lambda images, noise, sigma: images + sigma * noise),
                "The sampler multiplies its latents by sigma_max, and yours are multiplied already: divide by sigma.",
            ),
            (
                from_latents(lambda images, noise, sigma: images + noise),
                "The sampler multiplies its latents by sigma_max, the images in them, too: divide the images by sigma "
                "first.",
            ),
            (
                from_latents(lambda images, noise, sigma: noise),
                "The images are nowhere in your latents.",
            ),
            (
                from_latents(lambda images, noise, sigma: images / sigma + noise, lambda sigma: 80.0),
                "The sampler starts at 80, its default, though your images carry noise of sigma: set sigma_max.",
            ),
            (
                from_latents(lambda images, noise, sigma: images + sigma * noise, lambda sigma: 80.0),
                "The sampler starts at 80, its default, though your images carry noise of sigma: set sigma_max. And it "
                "multiplies its latents by it.",
            ),
        ],
        tolerance=2e-3,
    )
