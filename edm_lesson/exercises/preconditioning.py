"""Exercises of notebook 03: the best skip factor, another way to ask a network, and data whose mean is not zero."""

import torch

from edm_lesson.exercises import Attempt, Wrong, compare, exercise


@exercise("03.1")
def best_c_skip(attempt):
    def solution(y, x):
        return (x * y).mean() / (x * x).mean()

    def case(sigma):
        y = 0.6 * torch.randn(5, 1, 8, 8, dtype=torch.float64) - 0.7
        noise = torch.randn_like(y)
        noise += (0.1 - (noise * y).mean() / (y * y).mean()) * y  # so that x·y and y² always have different means
        return y, y + sigma * noise

    mistakes = [
        (
            lambda y, x: ((x - x.mean()) * (y - y.mean())).mean() / x.var(unbiased=False),
            "You minimise the variance of y - c·x, which forgets the mean: no means are subtracted here.",
        ),
        (
            lambda y, x: ((x - x.mean()) * (y - y.mean())).mean() / x.var(),
            "You minimise the variance of y - c·x, which forgets the mean: no means are subtracted here.",
        ),
        (
            lambda y, x: (x * y).mean() / (y * y).mean(),
            "You divide by the mean of y²: that is the best factor for the way back, from y to x. Divide by x²'s.",
        ),
        (
            lambda y, x: (y * y).mean() / (x * x).mean(),
            "The derivative of (y - c·x)² holds the product x·y, not y². (On average the two agree, on your data they "
            "don't quite.)",
        ),
        (lambda y, x: (y / x).mean(), "The mean of y/x is not it: where x is near 0, it explodes."),
        (lambda y, x: (x * y).mean(), "Divide by the mean of x² yet."),
    ]
    compare(attempt, solution, [case(sigma) for sigma in (0.2, 1.0, 4.0)], mistakes, tolerance=1e-2)


@exercise("03.2")
def edm_answer(attempt):
    def coefficients(sigma, sigma_data):
        total = sigma**2 + sigma_data**2
        return sigma_data**2 / total, sigma * sigma_data / total**0.5

    def solution(eps, x, sigma, sigma_data):
        c_skip, c_out = coefficients(sigma, sigma_data)
        return (x - sigma * eps - c_skip * x) / c_out

    def plus_noise(eps, x, sigma, sigma_data):
        c_skip, c_out = coefficients(sigma, sigma_data)
        return (x + sigma * eps - c_skip * x) / c_out

    def unscaled_noise(eps, x, sigma, sigma_data):
        c_skip, c_out = coefficients(sigma, sigma_data)
        return (x - eps - c_skip * x) / c_out

    def no_skip(eps, x, sigma, sigma_data):
        return (x - sigma * eps) / coefficients(sigma, sigma_data)[1]

    def no_out(eps, x, sigma, sigma_data):
        return x - sigma * eps - coefficients(sigma, sigma_data)[0] * x

    def times_out(eps, x, sigma, sigma_data):
        c_skip, c_out = coefficients(sigma, sigma_data)
        return (x - sigma * eps - c_skip * x) * c_out

    def no_root(eps, x, sigma, sigma_data):
        total = sigma**2 + sigma_data**2
        return (x - sigma * eps - sigma_data**2 / total * x) / (sigma * sigma_data / total)

    def negative(eps, x, sigma, sigma_data):
        return -solution(eps, x, sigma, sigma_data)

    mistakes = [
        (plus_noise, "The noise has the wrong sign: D = x - σ·eps, since eps is what was added."),
        (unscaled_noise, "eps has standard deviation 1; the noise in x is σ·eps."),
        (no_skip, "Part of D comes from c_skip·x already: subtract it before you divide by c_out."),
        (no_out, "What is left of D is c_out·F: divide by c_out yet."),
        (times_out, "You multiply by c_out where F is what is left *divided* by it."),
        (no_root, "Your c_out lacks the root: it is σ·σ_data/√(σ² + σ_data²)."),
        (negative, "The sign is turned round: F = (D - c_skip·x)/c_out."),
    ]
    cases = []
    for sigma_data in (0.5, 0.8):
        sigma = float(torch.empty(()).uniform_(0.2, 3.0))
        cases.append((torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4), sigma, sigma_data))
    compare(attempt, solution, cases, mistakes, tolerance=1e-3)


@exercise("03.3")
def uncenter(attempt):
    def centered_denoiser(x, sigma):
        return x / (1 + sigma**2) + 0.1 * x**2  # any function of x will do, as long as it is not linear

    def turned(back, forth):
        """A solution that subtracts `back` times the mean first and adds `forth` times the mean afterwards."""
        return lambda x, sigma, mean: centered_denoiser(x - back * mean, sigma) + forth * mean

    mistakes = [
        (turned(1, 0), "The answer is still centred: add the mean back to it."),
        (turned(0, 1), "The network is given images with their mean: it was trained on images without."),
        (turned(0, -1), "The network is given images with their mean: subtract it from x, not from the answer."),
        (turned(-1, -1), "The signs are turned round: subtract the mean from x, add it to the answer."),
        (turned(1, -1), "The mean is taken away twice: subtract it from x, but *add* it to the answer."),
    ]
    mean = float(torch.empty(()).uniform_(-0.8, -0.4))
    denoiser = attempt(centered_denoiser, mean)
    if not callable(denoiser):
        raise Wrong(f"uncenter returns a {type(denoiser).__name__}; it must return a function of x and sigma.")
    cases = [(torch.randn(2, 1, 4, 4), float(torch.empty(()).uniform_(0.2, 3.0))) for _ in range(2)]
    compare(
        Attempt(denoiser),
        lambda x, sigma: turned(1, 1)(x, sigma, mean),
        cases,
        [(lambda x, sigma, wrong=wrong: wrong(x, sigma, mean), sentence) for wrong, sentence in mistakes],
        name="your denoiser",
    )
