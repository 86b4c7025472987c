"""Exercises of notebook 07: steps along the path."""

from itertools import pairwise

import torch

from edm_lesson.exercises import Wrong, compare, exercise
from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.samplers import euler_step, heun_step
from edm_lesson.schedules import edm_sigmas


def new_x(attempt):
    """`attempt`, but where it returns the new x and D(x; sigma), as the steps of the notebook do, only the new x."""

    def step(*arguments):
        result = attempt(*arguments)
        return result[0] if isinstance(result, (tuple, list)) and len(result) else result

    return step


def some_steps(last):
    """Steps at random places of random Gaussians; with `last`, some of them end at 0."""
    cases = []
    for number in range(6):
        denoiser = GaussianDenoiser(torch.randn(()).item(), 0.3 + torch.rand(()).item())
        sigma = 0.2 + 4 * torch.rand(()).item()
        sigma_next = 0.0 if last and number >= 4 else sigma * (0.1 + 0.7 * torch.rand(()).item())
        cases.append((denoiser, sigma * torch.randn(2, 1, 3, 3), sigma, sigma_next))
    return cases


@exercise("07.1")
def mixture(attempt):
    def solution(denoiser, x, sigma, sigma_next):
        return euler_step(denoiser, x, sigma, sigma_next)[0]

    def mix(share):
        def step(denoiser, x, sigma, sigma_next):
            keep = share(sigma, sigma_next)
            return keep * x + (1 - keep) * denoiser(x, sigma)

        return step

    compare(
        new_x(attempt),
        solution,
        some_steps(last=False),
        [
            (
                mix(lambda sigma, sigma_next: 1 - sigma_next / sigma),
                "The two shares are swapped: the shorter the step, the more of x has to stay.",
            ),
            (
                mix(lambda sigma, sigma_next: (sigma_next / sigma) ** 2),
                "Your share of x is squared: sigma_next / sigma is how much of the noise's standard deviation stays, "
                "and x is kept in that proportion, not in that of the variance.",
            ),
            (
                mix(lambda sigma, sigma_next: sigma - sigma_next),
                "Your share of x is sigma - sigma_next, which has a unit; a share is a quotient of the two levels.",
            ),
            (
                lambda denoiser, x, sigma, sigma_next: (
                    sigma_next / sigma * x + (1 - sigma_next / sigma) * denoiser(x, sigma_next)
                ),
                "You ask the denoiser about sigma_next, but x still carries noise of strength sigma.",
            ),
            (
                lambda denoiser, x, sigma, sigma_next: sigma_next / sigma * x + denoiser(x, sigma),
                "The two shares have to add up to 1: what is kept of x is missing from the share of D.",
            ),
            (
                lambda denoiser, x, sigma, sigma_next: heun_step(denoiser, x, sigma, sigma_next)[0],
                "That is Heun's step; Euler's asks the denoiser once.",
            ),
        ],
        name=attempt.name,
    )
    ends = [(denoiser, x, sigma, 0.0) for denoiser, x, sigma, _ in some_steps(last=False)]
    compare(new_x(attempt), solution, ends, name=attempt.name)


@exercise("07.2")
def midpoint(attempt):
    def family(place=lambda a, b: (a + b) / 2, asked=None, divide=None, start_there=False, length=1.0):
        def step(denoiser, x, sigma, sigma_next):
            middle = place(sigma, sigma_next)
            x_middle, _ = euler_step(denoiser, x, sigma, middle)
            level = middle if asked is None else sigma
            slope = (x_middle - denoiser(x_middle, level)) / (middle if divide is None else sigma)
            return (x_middle if start_there else x) + length * (sigma_next - sigma) * slope

        return step

    def with_euler_at_the_end(denoiser, x, sigma, sigma_next):
        step = family() if sigma_next > 0 else lambda *arguments: euler_step(*arguments)[0]
        return step(denoiser, x, sigma, sigma_next)

    compare(
        new_x(attempt),
        family(),
        some_steps(last=True),
        [
            (
                family(start_there=True),
                "You take the whole step from the middle and so land too low: it starts from x; the middle is there "
                "to be looked at.",
            ),
            (
                family(length=0.5),
                "You go only half of the way: the slope in the middle is for the whole step, sigma_next - sigma.",
            ),
            (
                family(divide="sigma"),
                "The noise in the middle is divided by sigma; its level is the one half-way, so divide by that.",
            ),
            (
                family(asked="sigma", divide="sigma"),
                "In the middle you still tell the denoiser sigma, and divide by it; the level there is half-way to "
                "sigma_next.",
            ),
            (
                family(asked="sigma"),
                "In the middle you still tell the denoiser that the noise level is sigma; there it is half-way to "
                "sigma_next.",
            ),
            (
                lambda denoiser, x, sigma, sigma_next: euler_step(denoiser, x, sigma, sigma_next)[0],
                "That is Euler's step: the slope has to be taken again, in the middle.",
            ),
            (
                lambda denoiser, x, sigma, sigma_next: heun_step(denoiser, x, sigma, sigma_next)[0],
                "That is Heun's step: it looks at both ends. Look once, in the middle.",
            ),
            (
                with_euler_at_the_end,
                "At sigma_next = 0 you fall back on Euler's step. No need: half-way to 0 is sigma / 2, and there is a "
                "slope there.",
            ),
        ],
        name=attempt.name,
    )


@exercise("07.3")
def backwards(attempt):
    sigmas = edm_sigmas(128)
    cases = []
    for _ in range(2):
        denoiser = GaussianDenoiser(0.5 * torch.randn(()).item(), 0.4 + torch.rand(()).item())
        images = denoiser.mean + denoiser.std * torch.randn(2, 1, 4, 4)
        cases.append((denoiser, images, sigmas))

    def exact(denoiser, images, sigmas):
        return denoiser.path(images, sigmas[-2].item(), sigmas[0].item()) / sigmas[0].item()

    def along(step, levels, scale=True):
        def encode(denoiser, images, sigmas):
            x = images
            for sigma, sigma_next in pairwise(levels(sigmas).tolist()):
                x, _ = step(denoiser, x, sigma, sigma_next)
            return x / sigmas[0].item() if scale else x

        return encode

    def upward(sigmas):
        return sigmas.flip(0)[1:]

    asked = []

    def probe(x, sigma):
        asked.append(float(sigma))
        return denoiser(x, max(float(sigma), 1e-3))

    attempt(probe, images, sigmas)
    if min(asked, default=1.0) == 0:
        raise Wrong(
            "You start at sigma = 0, where there is no noise and no slope: leave that level out, and take the "
            "images for noisy ones at the lowest level above 0."
        )
    compare(
        attempt,
        exact,
        cases,
        [
            (
                along(heun_step, upward, scale=False),
                "That is x at the highest level. Latents have a standard deviation near 1: divide by sigma_max.",
            ),
            (
                along(euler_step, upward),
                "You walk up with Euler's steps; take heun_step, or the errors of the walk up and the walk down "
                "will not be small.",
            ),
            (
                along(heun_step, lambda sigmas: sigmas),
                "You walk down, from the highest level to 0, as a sampler does; turn the levels around.",
            ),
            (
                along(heun_step, lambda sigmas: sigmas[:-1]),
                "You walk down, from the highest level to the lowest, as a sampler does; turn the levels around.",
            ),
            (
                lambda denoiser, images, sigmas: images / sigmas[0].item(),
                "The images are only divided by sigma_max; nothing has been walked.",
            ),
        ],
        tolerance=0.01,
    )
