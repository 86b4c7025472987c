"""Exercises of notebook 09: a scaling, and two other languages for the same step."""

import math

import torch

from edm_lesson.exercises import Wrong, compare, exercise, to_float64


@exercise("09.1")
def flat_scale(attempt):
    def pair(sigma, sigma_data):
        result = attempt(sigma, sigma_data)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Wrong(f"{attempt.name} returns a {type(result).__name__}; two numbers are expected, s and ds/dσ.")
        return torch.stack([to_float64(part, attempt.name).reshape(()) for part in result])

    def solution(sigma, sigma_data):
        total = sigma**2 + sigma_data**2
        return sigma_data / total**0.5, -sigma_data * sigma / total**1.5

    def with_slope(change):
        return lambda sigma, sigma_data: (
            solution(sigma, sigma_data)[0],
            change(sigma, sigma_data, solution(sigma, sigma_data)[1]),
        )

    def whole(change):
        return lambda sigma, sigma_data: [change(part, sigma_data) for part in solution(sigma, sigma_data)]

    compare(
        pair,
        solution,
        [(0.1 + 2 * torch.rand(()).item(), 0.3 + 0.5 * torch.rand(()).item()) for _ in range(5)],
        [
            (
                whole(lambda part, sigma_data: part / sigma_data),
                "Along a path x is constant with yours, but at σ = 0 it is 1/σ_data; multiply s and ds/dσ so that s "
                "begins at 1.",
            ),
            (
                lambda sigma, sigma_data: (1 / math.sqrt(1 + sigma**2), -sigma / math.sqrt(1 + sigma**2) ** 3),
                "That is VP's scale, made for data of size 1; the data here have the size σ_data.",
            ),
            (
                with_slope(lambda sigma, sigma_data, slope: -slope),
                "Your s is right; ds/dσ has the wrong sign: s falls as σ grows.",
            ),
            (
                with_slope(lambda sigma, sigma_data, slope: slope / sigma),
                "Your s is right; in ds/dσ the inner derivative is missing: that of σ² is 2σ.",
            ),
            (
                with_slope(lambda sigma, sigma_data, slope: 2 * slope),
                "Your s is right; ds/dσ is twice too large: the exponent −½ comes down as a factor.",
            ),
            (
                lambda sigma, sigma_data: (
                    math.sqrt(sigma**2 + sigma_data**2) / sigma_data,
                    sigma / sigma_data / math.sqrt(sigma**2 + sigma_data**2),
                ),
                "Your s grows as the images do; it has to make up for that: take the inverse.",
            ),
            (
                lambda sigma, sigma_data: (
                    sigma_data**2 / (sigma**2 + sigma_data**2),
                    -2 * sigma * sigma_data**2 / (sigma**2 + sigma_data**2) ** 2,
                ),
                "Your s is the square of the right one: divide by the size of the images, not by their variance.",
            ),
        ],
        tolerance=1e-3,
        name=attempt.name,
    )


@exercise("09.2")
def ddim(attempt):
    def family(guess=None, again=None):
        def step(eps, x, alpha_bar, alpha_bar_next):
            if guess is None:
                y = (x - math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar)
            else:
                y = guess(eps, x, alpha_bar)
            if again is None:
                return math.sqrt(alpha_bar_next) * y + math.sqrt(1 - alpha_bar_next) * eps
            return again(y, eps, alpha_bar, alpha_bar_next)

        return step

    cases = []
    for _ in range(5):
        x, eps = torch.randn(2, 2, 1, 3, 3)
        alpha_bar = 0.05 + 0.6 * torch.rand(()).item()
        cases.append((eps, x, alpha_bar, alpha_bar + (0.98 - alpha_bar) * (0.2 + 0.7 * torch.rand(()).item())))
    compare(
        attempt,
        family(),
        cases,
        [
            (
                family(
                    lambda eps, x, a: (x - (1 - a) * eps) / a,
                    lambda y, eps, a, b: b * y + (1 - b) * eps,
                ),
                "The factors of image and noise are the roots of ᾱ and 1 − ᾱ; you take ᾱ and 1 − ᾱ themselves.",
            ),
            (
                family(lambda eps, x, a: (x - math.sqrt(1 - a) * eps) / a),
                "You divide by ᾱ to get the clean image; its factor in x is √ᾱ.",
            ),
            (
                family(lambda eps, x, a: x - math.sqrt(1 - a) * eps),
                "What is left without the noise is √ᾱ times the clean image: divide by √ᾱ.",
            ),
            (
                family(lambda eps, x, a: (x - eps) / math.sqrt(a)),
                "You subtract all of ε; x holds only √(1 − ᾱ) of it.",
            ),
            (
                family(lambda eps, x, a: (x + math.sqrt(1 - a) * eps) / math.sqrt(a)),
                "You add the noise to find the clean image; subtract it.",
            ),
            (
                family(again=lambda y, eps, a, b: math.sqrt(b) * y + math.sqrt(1 - a) * eps),
                "You mix in as much noise as there was; the new share is √(1 − ᾱ_next).",
            ),
            (
                family(again=lambda y, eps, a, b: y + math.sqrt((1 - b) / b) * eps),
                "Your x is without its scale, √ᾱ_next: that is EDM's z. Mix in DDIM's proportions.",
            ),
            (
                family(again=lambda y, eps, a, b: math.sqrt(b) * y),
                "No noise is left in your x; mix √(1 − ᾱ_next) of ε in again.",
            ),
            (
                family(again=lambda y, eps, a, b: y),
                "That is the clean image; it still has to be mixed with noise for the next level.",
            ),
        ],
    )
    ends = [(eps, x, alpha_bar, 1.0) for eps, x, alpha_bar, _ in cases]
    compare(attempt, family(), ends)


@exercise("09.3")
def velocity_denoiser(attempt):
    def network(weight):
        def velocity(x_t, t):
            t = torch.as_tensor(t, dtype=x_t.dtype).reshape(-1, 1, 1, 1)
            return (weight * x_t).sin() + t * x_t

        return velocity

    def ask(weight, x, sigma):
        return network_call(attempt(network(weight)), x, sigma)

    def network_call(denoiser, x, sigma):
        if not callable(denoiser):
            raise Wrong(f"{attempt.name} returns a {type(denoiser).__name__}; it has to return a function of x and σ.")
        try:
            return denoiser(x, sigma)
        except Exception as error:
            raise Wrong(f"the function that {attempt.name} returns raises {type(error).__name__}: {error}") from None

    def family(time=lambda sigma: sigma / (1 + sigma), shrink=True, answer=None):
        def denoise(weight, x, sigma):
            t = time(sigma)
            x_t = (1 - t) * x if shrink else x
            v = network(weight)(x_t, t)
            return x_t - t * v if answer is None else answer(x, x_t, t, v, sigma)

        return denoise

    cases = []
    for number in range(6):
        sigma = 0.1 + 3 * torch.rand(3, 1, 1, 1)
        x = torch.randn(3, 1, 2, 2) * (1 + sigma)
        cases.append((1 + torch.rand(()).item(), x, sigma if number % 2 else sigma[0].item()))
    compare(
        ask,
        family(),
        cases,
        [
            (
                family(shrink=False),
                "You hand the network an image of ours; its own images carry the factor 1 − t.",
            ),
            (
                family(answer=lambda x, x_t, t, v, sigma: x - t * v),
                "The network sees the right image, but then you subtract from x: the velocity belongs to x_t.",
            ),
            (
                family(answer=lambda x, x_t, t, v, sigma: x - sigma * v),
                "That is x − σ·v, right if v were the noise. But v is n − y, and x_t − t·v is the clean image already, "
                "without any scale to undo.",
            ),
            (
                family(answer=lambda x, x_t, t, v, sigma: x_t + t * v),
                "You go up, towards noise: v is n − y, so the clean image is x_t − t·v.",
            ),
            (
                family(answer=lambda x, x_t, t, v, sigma: x_t - v),
                "You subtract all of v; with x_t = y + t·(n − y), only t times v.",
            ),
            (
                family(answer=lambda x, x_t, t, v, sigma: x_t + (1 - t) * v),
                "x_t + (1 − t)·v is the noise n; the clean image is on the other side.",
            ),
            (
                family(time=lambda sigma: sigma),
                "You take σ for t; σ is t/(1 − t): solve that for t.",
            ),
            (
                family(time=lambda sigma: sigma / (1 - sigma)),
                "You solved σ = t/(1 − t) with a wrong sign: t is σ/(1 + σ), between 0 and 1.",
            ),
        ],
        tolerance=1e-3,
        name=attempt.name,
    )
