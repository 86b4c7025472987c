"""Exercises: `check("02.1", function)` calls the learner's function on fresh random input and says what is wrong.

Each notebook's exercises stand in a module of this folder. An exercise is a function that is given an `Attempt` and
raises `Wrong` with a sentence for the learner; what is expected is computed by code, never stored.
"""

import importlib
import math

import torch

MODULES = {
    "01": "noise",
    "02": "schedule",
    "03": "preconditioning",
    "04": "weighting",
    "05": "unet",
    "06": "training",
    "07": "heun",
    "08": "stochastic",
    "09": "design",
    "10": "quality",
    "11": "augment",
}
EXERCISES = {}


class Wrong(Exception):
    """The answer is wrong; the message tells the learner how, in a sentence."""


class NotAttempted(Exception):
    """The learner's function still returns nothing."""


def exercise(name):
    """Register the decorated function as the check of exercise `name` ("02.1")."""

    def register(judge):
        EXERCISES[name] = judge
        return judge

    return register


def check(name, function):
    """Say whether `function` solves exercise `name` ("02.1": the first of notebook 02), and if not, what is wrong.

    Prints one line: ✓ solved, ○ not attempted yet (the function returns None), or ✗ and a sentence. The random
    numbers of the notebook are left alone. Raises `ValueError` for an exercise that doesn't exist.
    """
    if name[:2] in MODULES:
        importlib.import_module(f"{__name__}.{MODULES[name[:2]]}")
    if name not in EXERCISES:
        raise ValueError(f"There is no exercise {name!r}; there are {', '.join(sorted(EXERCISES)) or 'none'}.")
    with torch.random.fork_rng(devices=[]):
        torch.seed()
        try:
            EXERCISES[name](Attempt(function))
            print(f"✓ {name} solved")
        except NotAttempted:
            print(f"○ {name} not attempted yet")
        except Wrong as wrong:
            print(f"✗ {name} {wrong}")


class Attempt:
    """The learner's function: calling it checks that it returns something, and turns its errors into a sentence."""

    def __init__(self, function):
        self.function, self.name = function, getattr(function, "__name__", "your function")

    def __call__(self, *arguments):
        try:
            result = self.function(*arguments)
        except NotImplementedError:
            raise NotAttempted from None
        except Exception as error:
            raise Wrong(f"{call(self.name, arguments)} raises {type(error).__name__}: {error}") from None
        if result is None or result is ...:
            raise NotAttempted
        return result


def compare(attempt, solution, cases, mistakes=(), tolerance=1e-4, name=None):
    """Refuse an `attempt` that differs from `solution` on one of the `cases`, tuples of arguments.

    `mistakes` are pairs of a wrong function and the sentence that names its mistake: a learner whose answers agree
    with it on every case is told that sentence, anyone else where the answers part. `name` is what the learner calls
    the function, where `attempt` is no `Attempt` but made of one.
    """
    cases, name = list(cases), name or attempt.name
    answers = [to_float64(attempt(*case), name) for case in cases]
    expected = [to_float64(solution(*case), name) for case in cases]
    if all(close(answer, right, tolerance) for answer, right in zip(answers, expected, strict=True)):
        return
    for mistake, sentence in mistakes:
        wrong = [to_float64(mistake(*case), name) for case in cases]
        if all(close(answer, other, tolerance) for answer, other in zip(answers, wrong, strict=True)):
            raise Wrong(sentence)
    for case, answer, right in zip(cases, answers, expected, strict=True):
        where = call(name, case)
        if answer.shape != right.shape:
            raise Wrong(f"{where} has shape {tuple(answer.shape)}; {tuple(right.shape)} is expected.")
        if not close(answer, right, tolerance):
            worst = (answer - right).abs().nan_to_num(math.inf).argmax()
            found, wanted = answer.flatten()[worst].item(), right.flatten()[worst].item()
            place = f", entry {worst.item()}," if answer.numel() > 1 else ""
            raise Wrong(f"{where}{place} is {found:.4g}; {wanted:.4g} is expected.")


def to_float64(value, name):
    """A learner's answer as a float64 tensor."""
    try:
        return torch.as_tensor(value).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{name} returns a {type(value).__name__}; a number or a tensor is expected.") from None


def close(answer, expected, tolerance):
    """Whether two tensors have one shape and agree, relative to the largest expected entry."""
    if answer.shape != expected.shape:
        return False
    scale = max(expected.abs().max().item(), 1e-6) if expected.numel() else 1.0
    return bool(((answer - expected).abs() <= tolerance * scale).all())


def call(name, arguments):
    """A call as text for a learner: numbers as they are, tensors by their shape."""

    def show(argument):
        if isinstance(argument, torch.Tensor):
            return f"{argument.item():.4g}" if argument.ndim == 0 else f"tensor of shape {tuple(argument.shape)}"
        if isinstance(argument, float):
            return f"{argument:.4g}"
        return getattr(argument, "__name__", None) or (
            type(argument).__name__ if callable(argument) else repr(argument)
        )

    return f"{name}({', '.join(map(show, arguments))})"
