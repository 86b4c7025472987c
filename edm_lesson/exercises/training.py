"""Exercises of notebook 06: the half-life of an average, and clipping a gradient."""

import math

import torch

from edm_lesson.exercises import Wrong, compare, exercise


@exercise("06.1")
def half_life(attempt):
    mistakes = [
        (
            lambda decay, batch_size: math.log(0.5) / math.log(decay),
            "That is the half-life in steps; every step is batch_size images.",
        ),
        (
            lambda decay, batch_size: batch_size / (1 - decay),
            "That is the mean age of what is averaged (after it 1/e is left, not a half): you left out ln 2.",
        ),
        (
            lambda decay, batch_size: math.log(0.5) / (batch_size * math.log(decay)),
            "You divide by batch_size: the number of steps has to be multiplied with it.",
        ),
        (
            lambda decay, batch_size: batch_size * math.log(decay) / math.log(0.5),
            "Upside down: a decay nearer to 1 must have a longer half-life.",
        ),
        (
            lambda decay, batch_size: batch_size * 0.5 / (1 - decay),
            "A loss of 1 − decay a step adds up to a half after that; but what decays is what is left, so it takes a "
            "logarithm.",
        ),
        (
            lambda decay, batch_size: -batch_size / math.log(decay),
            "After that, 1/e is left; for a half, ln 2 is missing.",
        ),
    ]
    cases = [(1 - 10 ** -(1 + 2.5 * torch.rand(()).item()), n) for n in torch.randint(8, 512, (4,)).tolist()]
    compare(
        attempt, lambda decay, batch_size: batch_size * math.log(0.5) / math.log(decay), cases, mistakes, tolerance=1e-4
    )


@exercise("06.2")
def clip(attempt):
    def length(gradients):
        return torch.cat([g.flatten() for g in gradients]).norm()

    def scaled(gradients, factor):
        return torch.cat([(factor * g).flatten() for g in gradients])

    def solution(gradients, max_norm):
        return scaled(gradients, min(1.0, (max_norm / length(gradients)).item()))

    def joined(gradients, max_norm):
        given = [g.clone() for g in gradients]
        result = attempt(given, max_norm)
        if isinstance(result, torch.Tensor) or not hasattr(result, "__iter__"):
            raise Wrong(f"{attempt.name} returns a {type(result).__name__}; a list of tensors is expected.")
        result = list(result)
        shapes = [tuple(getattr(g, "shape", ())) for g in result]
        if shapes != [tuple(g.shape) for g in gradients]:
            raise Wrong(f"The tensors that come back have shapes {shapes}; they must be those of the gradients.")
        return torch.cat([g.flatten() for g in result])

    mistakes = [
        (
            lambda gradients, max_norm: torch.cat(
                [(g * min(1.0, (max_norm / g.norm()).item())).flatten() for g in gradients]
            ),
            "You shorten every tensor by itself, which turns the gradient into another direction. Its length is that "
            "of all tensors together.",
        ),
        (
            lambda gradients, max_norm: scaled(gradients, (max_norm / length(gradients)).item()),
            "You lengthen short gradients, too: one that is shorter than max_norm stays as it is.",
        ),
        (
            lambda gradients, max_norm: torch.cat([g.clamp(-max_norm, max_norm).flatten() for g in gradients]),
            "You clip each number by itself, which turns the gradient into another direction; scale all by one factor.",
        ),
        (
            lambda gradients, max_norm: scaled(
                gradients, min(1.0, (max_norm / sum(g.norm() for g in gradients)).item())
            ),
            "Lengths of tensors don't add up: add their squares, and take the root at the end.",
        ),
        (
            lambda gradients, max_norm: scaled(gradients, min(1.0, (max_norm / length(gradients) ** 2).item())),
            "You forgot the root: the length is the root of the sum of squares.",
        ),
        (
            lambda gradients, max_norm: scaled(gradients, 1.0),
            "A gradient longer than max_norm comes back unchanged.",
        ),
    ]
    cases = []
    for factor in (0.2, 0.5, 3.0):
        gradients = [(1 + k) * torch.randn(shape) for k, shape in enumerate([(3, 4), (5,), (2, 2, 2)])]
        cases.append((gradients, factor * length(gradients).item()))
    compare(joined, solution, cases, mistakes, name=attempt.name)
