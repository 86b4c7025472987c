"""Argument checks, which stand above functions, in `@checked`, and what turns arguments into tensors of one shape.

Checks raise `ValueError`, for people. They look at values on the CPU only: elsewhere the device would have to wait.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Collection
from math import inf
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor

FINITE = sys.float_info.max
LARGEST = 1e15  # the largest noise level: its square still fits into float32
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
Function = TypeVar("Function", bound=Callable)


def checked(*rules: Callable, **argument_rules: Callable) -> Callable[[Function], Function]:
    """Refuse impossible arguments of the function below, before it is called; not in a graph that is being compiled.

    `name=rule` calls `rule("name", value)`; a rule without a name is called with those arguments that it names itself.
    """
    named = [(rule, inspect.signature(rule).parameters) for rule in rules]

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checking(*args, **kwargs):
            if not torch.compiler.is_compiling():
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                for name, rule in argument_rules.items():
                    rule(name, bound.arguments[name])
                for rule, names in named:
                    rule(**{name: value for name, value in bound.arguments.items() if name in names})
            return function(*args, **kwargs)

        return checking

    return decorate


def check_count(name: str, value: Any, minimum: int = 1, maximum: float = inf) -> None:
    """Refuse a `value` that is not a whole number from `minimum` to `maximum`."""
    if not (isinstance(value, Integral) and minimum <= int(value) <= maximum):
        limits = f", {minimum} or more" if maximum == inf else f" from {minimum} to {maximum}"
        raise ValueError(f"{name} is {value!r}; it must be a whole number{limits}.")


def check_number(name: str, value: Any, above: float = -inf, at_least: float = -inf, at_most: float = FINITE) -> None:
    """Refuse a `value` that is not a number, is NaN, not `above`, less than `at_least` or more than `at_most`."""
    if not (isinstance(value, Real) and above < float(value) and at_least <= float(value) <= at_most):
        wanted = "a number" if at_most == inf else "a finite number"
        wanted += f" above {above:g}" if above > -inf else ""
        wanted += f", {at_least:g} or more" if at_least > -inf else ""
        wanted += f", {at_most:g} or less" if at_most < FINITE else ""
        raise ValueError(f"{name} is {value!r}; it must be {wanted}.")


positive = functools.partial(check_number, above=0, at_most=LARGEST)
not_negative = functools.partial(check_number, at_least=0)
fraction = functools.partial(check_number, at_least=1e-9, at_most=0.999)
probability = functools.partial(check_number, at_least=0, at_most=1)


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Refuse a `value` that is none of the words in `choices`."""
    if value not in tuple(choices):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")


def check_levels(sigma_min: float, sigma_max: float, num_steps: int = 2, rho: float = 1.0) -> None:
    """Refuse noise levels that can't be laid out; `sigma_min` may be `sigma_max` where there is only one step."""
    check_count("num_steps", num_steps, maximum=10_000)
    check_number("sigma_min", sigma_min, at_least=1e-30)
    check_number("sigma_max", sigma_max, at_least=1e-30, at_most=LARGEST)
    check_number("rho", rho, at_least=0.1, at_most=1e6)  # within these limits float64 holds all powers
    if sigma_min > sigma_max or (sigma_min == sigma_max and num_steps > 1):
        raise ValueError(f"sigma_min is {sigma_min!r} and sigma_max is {sigma_max!r}; sigma_min must be smaller.")


def check_churn(S_churn: float, S_min: float, S_max: float, S_noise: float) -> None:
    """Refuse churn settings (Algorithm 2) that are negative, NaN, or an empty range of sigma."""
    check_number("S_noise", S_noise, at_least=0)
    for name, value in (("S_churn", S_churn), ("S_min", S_min), ("S_max", S_max)):
        check_number(name, value, at_least=0, at_most=inf)
    if S_min > S_max:
        raise ValueError(f"S_min is {S_min!r} and S_max is {S_max!r}; churn happens between them, so there is none.")


def check_images(name: str, x: Any, *sizes: int | None) -> None:
    """Refuse all but floating-point tensors (B, C, H, W) with C, or C, H and W, of these `sizes`; None is any."""
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
        found = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} is {found}; it must be a floating-point tensor (batch, channels, height, width).")
    if any(size not in (None, found) for size, found in zip(sizes, x.shape[1:], strict=False)):
        wanted = ", ".join(map(str, [*sizes, "height", "width"][:3]))
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be (batch, {wanted}).")


def readable(tensor: Tensor) -> bool:
    """Whether the values of `tensor` can be looked at for free: on the CPU, outside a graph that is being compiled."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_finite(name: str, tensor: Tensor, values: bool = False) -> None:
    """Refuse a tensor with NaN or infinite entries; one that is not on the CPU only with `values=True`."""
    if (values or readable(tensor)) and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} contains NaN or infinite values.")


def check_answer(answer: Tensor, x: Tensor, who: str = "network") -> None:
    """Refuse an `answer` that is not shaped like `x` (B, C, H, W): it could spread over `x` unnoticed."""
    if answer.shape != x.shape:
        found = f"the {who} answers {tuple(answer.shape)} to x of shape {tuple(x.shape)}"
        raise ValueError(f"{found}; it must answer in the same shape.")


def per_image(sigma: Tensor | float, x: Tensor) -> Tensor:
    """A number, a tensor with one element, (B,) or (B, 1, 1, 1) as noise levels (B, 1, 1, 1) for the images `x`.

    In the dtype of `x`, in which they must be positive, and on its device.
    """
    levels = torch.as_tensor(sigma, dtype=x.dtype)
    batch = x.shape[0]
    if levels.numel() != 1 and levels.shape not in ((batch,), (batch, 1, 1, 1)):
        wanted = f"a number, ({batch},) or ({batch}, 1, 1, 1)"
        raise ValueError(f"sigma has shape {tuple(levels.shape)}; it must be {wanted}.")
    if readable(levels) and not (fine := levels.isfinite() & (levels > 0) & (levels <= LARGEST)).all():
        wrong = torch.as_tensor(sigma, dtype=torch.float64)[~fine][0].item()
        raise ValueError(f"sigma contains {wrong!r}; as {x.dtype}, noise levels must be above 0, up to {LARGEST:g}.")
    return levels.to(x.device).reshape(-1, 1, 1, 1).expand(batch, 1, 1, 1)


def one_hot(class_labels: Any, label_dim: int, x: Tensor, values: bool = False) -> Tensor | None:
    """Class labels for the images `x` (B, ...) as float32 (B, `label_dim`) on their device; None without classes.

    `class_labels` is None (all zeros: no class), integers (B,) or one-hot (B, `label_dim`). Integers outside of
    [0, `label_dim`) are refused on the CPU or with `values=True`.
    """
    batch = x.shape[0]
    if class_labels is None:
        return x.new_zeros(batch, label_dim, dtype=torch.float32) if label_dim else None
    if not label_dim:
        raise ValueError("class_labels were given, but this model has no classes (label_dim is 0); leave them out.")
    labels = torch.as_tensor(class_labels)
    if labels.shape == (batch, label_dim):
        return labels.to(x.device, torch.float32)
    if labels.shape != (batch,) or labels.dtype not in INTEGERS:
        wanted = f"integers ({batch},) or one-hot ({batch}, {label_dim})"
        raise ValueError(f"class_labels is {labels.dtype} of shape {tuple(labels.shape)}; it must be {wanted}.")
    outside = (labels < 0) | (labels >= label_dim)
    if (values or readable(labels)) and outside.any():
        wrong = labels[outside][0].item()
        raise ValueError(f"class_labels contains {wrong}; this model's classes are 0 to {label_dim - 1}.")
    classes = torch.arange(label_dim, device=x.device)
    return (labels.to(x.device)[:, None] == classes).float()  # F.one_hot would stop a GPU on a bad label
