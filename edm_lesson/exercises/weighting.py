"""Exercises of notebook 04: a weight for a given size, where training looks, and trading draws for weights."""

import math
from statistics import NormalDist

import torch

from edm_lesson.exercises import compare, exercise
from edm_lesson.losses import EDMLoss


def uniform(low, high):
    """A random number between `low` and `high`, not rounded."""
    return float(torch.empty((), dtype=torch.float64).uniform_(low, high))


@exercise("04.1")
def flat_weight(attempt):
    def unweighted(sigma, sigma_data, rms, power=2):
        c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
        return (1 - c_skip) ** power * rms**2 + c_skip**power * sigma**2

    def solution(sigma, sigma_data, rms):
        return 1 / unweighted(sigma, sigma_data, rms)

    def edm(sigma, sigma_data, rms):
        return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2

    mistakes = [
        (edm, "That is EDM's own weight. It is flat only where rms and sigma_data agree; your answer never uses rms."),
        (
            lambda sigma, sigma_data, rms: edm(sigma, rms, rms),
            "You put rms in place of sigma_data everywhere, c_skip included: that is another model, and the task was "
            "to keep this one.",
        ),
        (unweighted, "That is the first loss without a weight; the weight that makes it 1 is its inverse."),
        (
            lambda sigma, sigma_data, rms: 1 / (edm(sigma, sigma_data, rms) * unweighted(sigma, sigma_data, rms)),
            "That is the factor by which EDM's weight has to be multiplied, not the weight itself.",
        ),
        (
            lambda sigma, sigma_data, rms: edm(sigma, sigma_data, rms) * sigma_data**2 / rms**2,
            "Right where σ is large only: at small σ the first loss doesn't depend on rms.",
        ),
        (
            lambda sigma, sigma_data, rms: 1 / unweighted(sigma, sigma_data, rms, power=1),
            "The factors 1 - c_skip and c_skip are squared, like what they multiply: this is a mean square.",
        ),
        (
            lambda sigma, sigma_data, rms: unweighted(sigma, sigma_data, rms) ** -0.5,
            "No root: the weight multiplies the squared error.",
        ),
    ]
    cases = [(uniform(*limits), uniform(0.4, 0.6), uniform(0.8, 1.2)) for limits in ((0.1, 0.3), (0.5, 1.5), (3, 20))]
    compare(attempt, solution, cases, mistakes, tolerance=1e-2)


@exercise("04.2")
def share_of_draws(attempt):
    def normal(value, mean, std):
        return NormalDist(mean, std).cdf(value)

    def solution(low, high, P_mean, P_std):
        return normal(math.log(high), P_mean, P_std) - normal(math.log(low), P_mean, P_std)

    mistakes = [
        (
            lambda low, high, P_mean, P_std: normal(high, P_mean, P_std) - normal(low, P_mean, P_std),
            "Not σ is normal, but ln σ: take the logarithm of both limits.",
        ),
        (
            lambda low, high, P_mean, P_std: (
                normal(math.log10(high), P_mean, P_std) - normal(math.log10(low), P_mean, P_std)
            ),
            "Take the natural logarithm, not that to base 10.",
        ),
        (
            lambda low, high, P_mean, P_std: normal(math.log(high), P_mean, P_std),
            "That is the share below `high`; those below `low` have to go.",
        ),
        (
            lambda low, high, P_mean, P_std: (
                normal(math.log(low), P_mean, P_std) - normal(math.log(high), P_mean, P_std)
            ),
            "The sign is turned round: the share below `high` minus the share below `low`.",
        ),
        (
            lambda low, high, P_mean, P_std: (
                normal(math.log(high), P_mean, P_std**0.5) - normal(math.log(low), P_mean, P_std**0.5)
            ),
            "P_std is a standard deviation, not a variance: no root is taken of it.",
        ),
        (
            lambda low, high, P_mean, P_std: (
                normal(math.log(high), P_mean, P_std**2) - normal(math.log(low), P_mean, P_std**2)
            ),
            "P_std is the standard deviation already; you squared it.",
        ),
        (
            lambda low, high, P_mean, P_std: normal(math.log(high), 0, 1) - normal(math.log(low), 0, 1),
            "The normal distribution here has mean P_mean and standard deviation P_std, not 0 and 1.",
        ),
    ]
    cases = []
    for _ in range(3):  # shares that are large enough to be counted in draws, too
        P_mean, P_std = uniform(-1.6, -0.8), uniform(1.3, 1.8)
        low, high = math.exp(P_mean + uniform(-0.8, -0.3) * P_std), math.exp(P_mean + uniform(0.4, 1.2) * P_std)
        cases.append((low, high, P_mean, P_std))
    compare(attempt, solution, cases, mistakes, tolerance=0.04)


@exercise("04.3")
def even_weight(attempt):
    def density(sigma, loss):
        return NormalDist(loss.P_mean, loss.P_std).pdf(math.log(sigma))

    def solution(sigma, sigma_min, sigma_max, loss):
        return loss.weight(sigma) * density(sigma, loss) * math.log(sigma_max / sigma_min)

    mistakes = [
        (
            lambda sigma, sigma_min, sigma_max, loss: loss.weight(sigma) * density(sigma, loss),
            "Right up to a constant: an even draw of ln σ has a density too, one over the length of its range. Divide "
            "by it.",
        ),
        (
            lambda sigma, sigma_min, sigma_max, loss: (
                loss.weight(sigma) * density(sigma, loss) / math.log(sigma_max / sigma_min)
            ),
            "The length of the range is on the wrong side: the even density is one over it, and you divide by that.",
        ),
        (
            lambda sigma, sigma_min, sigma_max, loss: (
                loss.weight(sigma) * density(sigma, loss) * (sigma_max - sigma_min)
            ),
            "Even is the draw of ln σ, not of σ: the length of its range is ln(sigma_max) - ln(sigma_min).",
        ),
        (
            lambda sigma, sigma_min, sigma_max, loss: loss.weight(sigma),
            "That is EDM's weight as it is; but EDM draws this level more or less often than an even draw does.",
        ),
        (
            lambda sigma, sigma_min, sigma_max, loss: density(sigma, loss) * math.log(sigma_max / sigma_min),
            "That is by how much more often EDM draws this level; multiply it with EDM's weight.",
        ),
        (
            lambda sigma, sigma_min, sigma_max, loss: (
                loss.weight(sigma) / (density(sigma, loss) * math.log(sigma_max / sigma_min))
            ),
            "Upside down: levels that EDM draws often must count *more* when all are drawn equally often.",
        ),
        (
            lambda sigma, sigma_min, sigma_max, loss: solution(sigma, sigma_min, sigma_max, loss) / sigma,
            "That is the density of σ; both draws are of ln σ, so compare densities of ln σ (without the 1/σ).",
        ),
        (
            lambda sigma, sigma_min, sigma_max, loss: (
                loss.weight(sigma) * NormalDist(loss.P_mean, loss.P_std).pdf(sigma) * math.log(sigma_max / sigma_min)
            ),
            "Not σ is normal, but ln σ: take the density at ln σ.",
        ),
    ]
    cases = []
    for limits in ((0.03, 0.1), (0.2, 0.8), (1.5, 4.0)):
        loss = EDMLoss(uniform(-1.6, -0.8), uniform(0.9, 1.5), uniform(0.4, 0.9))
        cases.append((uniform(*limits), uniform(0.001, 0.01), uniform(50.0, 100.0), loss))
    compare(attempt, solution, cases, mistakes, tolerance=1e-3)
