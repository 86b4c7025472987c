"""Checks of notebook 02: the schedule backwards, VP's time, and levels with even errors."""

from itertools import pairwise

import torch

from edm_lesson.exercises import Wrong, compare, exercise, to_float64
from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.samplers import euler_step
from edm_lesson.schedules import edm_sigmas


@exercise("02.1")
def step_index(attempt):
    def solution(sigma, num_steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
        lo, hi = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        return (num_steps - 1) * (hi - sigma ** (1 / rho)) / (hi - lo)

    def one_too_many(sigma, num_steps, *range_and_rho):
        return solution(sigma, num_steps, *range_and_rho) * num_steps / (num_steps - 1)

    def counted_from_one(*arguments):
        return solution(*arguments) + 1

    def upside_down(sigma, num_steps, *range_and_rho):
        return num_steps - 1 - solution(sigma, num_steps, *range_and_rho)

    def without_root(sigma, num_steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
        return solution(sigma, num_steps, sigma_min, sigma_max, 1.0)

    def power(sigma, num_steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
        return solution(sigma, num_steps, sigma_min, sigma_max, 1 / rho)

    def always_seven(sigma, num_steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
        return solution(sigma, num_steps, sigma_min, sigma_max, 7.0)

    def always_the_defaults(sigma, num_steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
        return solution(sigma, num_steps, 0.002, 80.0, rho)

    def fraction(sigma, num_steps, *range_and_rho):
        return solution(sigma, num_steps, *range_and_rho) / (num_steps - 1)

    def rounded(*arguments):
        return round(solution(*arguments))

    mistakes = [
        (one_too_many, "At sigma_min you return num_steps, one too many: N levels have N - 1 intervals between them."),
        (counted_from_one, "You count from 1; the first level, sigma_max, has the index 0."),
        (upside_down, "You count from sigma_min up; index 0 is sigma_max."),
        (without_root, "You forget the root: levels are evenly spaced only once the rho-th root is taken."),
        (power, "You take the rho-th power where the rho-th root is asked for: sigma ** (1 / rho)."),
        (always_seven, "You always take rho = 7; rho is an argument."),
        (always_the_defaults, "You always take the range from 0.002 to 80; sigma_min and sigma_max are arguments."),
        (fraction, "You return the share of the way, from 0 to 1; multiply by the N - 1 intervals."),
        (rounded, "You round; the index may lie between two levels."),
    ]
    cases = [(80.0, 18), (0.002, 18), (edm_sigmas(18)[5].item(), 18)]
    for rho in [3.0, 7.0, 10.0]:
        sigma_min, sigma_max = 0.001 + torch.rand(()).item() / 50, 20 + 100 * torch.rand(()).item()
        sigma = sigma_min + (sigma_max - sigma_min) * torch.rand(()).item() ** 4
        cases.append((sigma, 9 + int(30 * torch.rand(()).item()), sigma_min, sigma_max, rho))
    compare(attempt, solution, cases, mistakes)


@exercise("02.2")
def vp_time(attempt):
    def exponent(sigma):
        return torch.log1p(torch.as_tensor(sigma, dtype=torch.float64) ** 2)

    def solve(log, beta_d, beta_min):  # the positive t with beta_d t^2 / 2 + beta_min t = log
        return ((beta_min**2 + 2 * beta_d * log).sqrt() - beta_min) / beta_d

    def solution(sigma, beta_d=19.9, beta_min=0.1):
        return solve(exponent(sigma), beta_d, beta_min)

    def other(log=exponent, factor=2.0, sign=-1.0):
        def wrong(sigma, beta_d=19.9, beta_min=0.1):
            return ((beta_min**2 + factor * beta_d * log(sigma)).clamp(min=0).sqrt() + sign * beta_min) / beta_d

        return wrong

    def log_sigma_squared(sigma):
        return torch.as_tensor(sigma, dtype=torch.float64).log() * 2

    def log_one_plus_sigma(sigma):
        return torch.log1p(torch.as_tensor(sigma, dtype=torch.float64))

    def without_beta_min(sigma, beta_d=19.9, beta_min=0.1):
        return (2 * exponent(sigma) / beta_d).sqrt()

    mistakes = [
        (other(log=log_sigma_squared), "You take the logarithm of sigma^2; sigma^2 + 1 is the exponential."),
        (other(log=log_one_plus_sigma), "You take ln(1 + sigma); sigma has to be squared, for sigma is a root."),
        (other(factor=4.0), "You overlook the 1/2 before beta_d * t^2."),
        (other(factor=1.0), "Under the root stands beta_min^2 + 2 * beta_d * ln(...): a factor of 2 is missing."),
        (
            other(sign=1.0),
            "The sign of beta_min is wrong: that is the other solution of the quadratic equation, negated.",
        ),
        (without_beta_min, "You leave out beta_min * t; at low noise it is what counts."),
        (
            lambda sigma, beta_d=19.9, beta_min=0.1: solution(sigma),
            "You always take beta_d = 19.9 and beta_min = 0.1; they are arguments.",
        ),
    ]
    cases = [(152.16697,), (0.0104863,), (1.0,)]
    for _ in range(3):
        sigma = 10 ** (3 * torch.rand(()).item() - 2)
        cases.append((sigma, 5 + 20 * torch.rand(()).item(), 0.05 + torch.rand(()).item()))
    compare(attempt, solution, cases, mistakes)


@exercise("02.3")
def even_sigmas(attempt):
    for num_steps in (18, 40):
        sigmas = to_float64(attempt(num_steps), attempt.name)
        where = f"{attempt.name}({num_steps})"
        if sigmas.shape != (num_steps + 1,):
            raise Wrong(
                f"{where} has shape {tuple(sigmas.shape)}; {(num_steps + 1,)} is expected: levels and a 0 after them."
            )
        if sigmas[-1] != 0:
            raise Wrong(f"{where} ends with {sigmas[-1]:.4g}; the last entry must be 0, the finished image.")
        if not bool((sigmas.diff() < 0).all()):
            raise Wrong(f"{where} does not fall from entry to entry; a sampler goes from 80 down.")
        if not (79.9 < sigmas[0] < 80.1 and 0.0019 < sigmas[-2] < 0.0021):
            raise Wrong(f"{where} goes from {sigmas[0]:.4g} to {sigmas[-2]:.4g}; 80 to 0.002 is expected.")
        gaussian, start = GaussianDenoiser(-0.739, 0.616), torch.full((1, 1, 1, 1), 80.0, dtype=torch.float64)
        errors = []
        for sigma, sigma_next in pairwise(sigmas[:-1].tolist()):
            stepped = euler_step(gaussian, gaussian.path(start, 80.0, sigma), sigma, sigma_next)[0]
            errors.append((stepped - gaussian.path(start, 80.0, sigma_next)).abs().item())
        ratio = max(errors) / max(min(errors), 1e-12)
        if ratio < 2:
            continue
        if torch.allclose(sigmas, edm_sigmas(num_steps), rtol=1e-3):
            raise Wrong(f"Those are EDM's levels: Euler's largest local error is {ratio:.0f} times the smallest.")
        for power, sentence in [
            (
                -1.5,
                "You space the levels by x'' itself. The error is h^2 * x'', so it is the *root* of x'' that counts.",
            ),
            (0.75, "The levels are sparse where the path bends: h must be short where x'' is large."),
            (1.5, "The levels are sparse where the path bends: h must be short where x'' is large."),
            (0.0, "The levels are evenly spaced."),
            (-0.5, "You space the levels by the cube root of x'': the error is h^2 * x'', so it is the square root."),
        ]:
            if torch.allclose(sigmas, levels_of_density(num_steps, power), rtol=0.02, atol=1e-3):
                raise Wrong(f"{sentence} (The largest error is {ratio:.0f} times the smallest.)")
        worst = errors.index(max(errors))
        raise Wrong(
            f"With {num_steps} levels Euler's largest local error, in the step from {sigmas[worst]:.3g} to "
            f"{sigmas[worst + 1]:.3g}, is {ratio:.0f} times the smallest; less than twice is expected."
        )


def levels_of_density(num_steps, power):
    """Levels from 80 to 0.002 whose number per unit of sigma goes as (0.616^2 + sigma^2) to that `power`, and a 0."""
    grid = torch.linspace(80**0.1, 0.002**0.1, 20_001, dtype=torch.float64) ** 10
    traveled = torch.cumulative_trapezoid((0.616**2 + grid**2) ** power, -grid)
    traveled = torch.cat([traveled.new_zeros(1), traveled])
    cuts = torch.linspace(0, 1, num_steps, dtype=torch.float64) * traveled[-1]
    levels = grid[torch.searchsorted(traveled, cuts).clamp(max=len(grid) - 1)]
    return torch.cat([levels, levels.new_zeros(1)])
