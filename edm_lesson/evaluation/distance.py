"""The Fréchet distance of two sets of features, and its ratio to that of real digits; built in notebook 10."""

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of two sets of features (N, D) and (M, D), each taken for a Gaussian: a number, 0 or more.

    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), C the covariances; float64, on the CPU, since not every
    device has it.
    """
    a, b = a.cpu().double(), b.cpu().double()
    values, vectors = torch.linalg.eigh(torch.atleast_2d(a.T.cov()))
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # C_a^(1/2)
    product = torch.linalg.eigvalsh(root @ torch.atleast_2d(b.T.cov()) @ root)  # its eigenvalues are those of C_a C_b
    trace = a.var(dim=0).sum() + b.var(dim=0).sum() - 2 * product.clamp(min=0).sqrt().sum()
    return ((a.mean(dim=0) - b.mean(dim=0)).square().sum() + trace).clamp(min=0).item()


def real_distance(count: int, train_features: Tensor, test_features: Tensor, subsets: int = 5, seed: int = 0) -> float:
    """The mean Fréchet distance of `subsets` random subsets of `count` training digits to the test digits."""
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for _ in range(subsets):
        chosen = torch.randperm(len(train_features), generator=generator)[:count]
        distances.append(frechet_distance(train_features[chosen], test_features))
    return sum(distances) / subsets


def distance_ratio(
    features: Tensor, train_features: Tensor, test_features: Tensor, subsets: int = 5, seed: int = 0
) -> float:
    """How much further from the test digits than real digits are: 1 is as good as real.

    The Fréchet distance of `features` (N, D) to `test_features`, divided by the mean of the same distance for
    `subsets` random subsets of N rows of `train_features`.
    """
    floor = real_distance(len(features), train_features, test_features, subsets, seed)
    return frechet_distance(features, test_features) / floor
