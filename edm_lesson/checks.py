"""One-line argument checks whose messages are for people.

Every check raises `ValueError` with the value it found and what would have worked. Numbers and CPU tensors
are checked by value; tensors on another device by shape only, because looking at their values would make
the device wait (`check_labels` and `check_finite` take `values=True` for the one look at the start of sampling).
"""

import math

import numpy as np
import torch

LARGEST = 1e15  # the largest noise level: its square still fits into float32
WHOLE = (int, np.int64)  # smaller types overflow where they are added up
NUMBERS = (*WHOLE, float, np.float32)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_count(name, value, minimum=1):
    """Refuse a `value` that is not a whole number of at least `minimum`."""
    whole = isinstance(value, WHOLE) and not isinstance(value, bool)
    if not whole or not minimum <= value < 2**63:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, {minimum} or more.")


def check_number(name, value, above=None, at_least=None, at_most=math.inf, infinite=False):
    """Refuse a `value` that is not a number, is NaN, not `above`, less than `at_least` or more than `at_most`.

    Infinity passes only with `infinite=True`, and a whole number that squared exceeds 64 bits only as 1e12.
    """
    fine = isinstance(value, NUMBERS) and not isinstance(value, bool)
    fine = fine and (not isinstance(value, WHOLE) or abs(value) < 2**31) and (infinite or math.isfinite(value))
    fine = fine and value <= at_most and (above is None or value > above) and (at_least is None or value >= at_least)
    if not fine:
        wanted = "a number" if infinite else "a finite number"
        if above is not None:
            wanted += f" above {above:g}"
        if at_least is not None:
            wanted += f", {at_least:g} or more"
        if math.isfinite(at_most):
            wanted += f", {at_most:g} or less"
        if isinstance(value, WHOLE) and abs(value) >= 2**31:
            wanted += ", written with a decimal point where it is so large"
        raise ValueError(f"{name} is {value!r}; it must be {wanted}.")


def check_choice(name, value, choices):
    """Refuse a `value` that is none of the words in `choices`."""
    if value not in tuple(choices):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")


def check_levels(num_steps, sigma_min, sigma_max, rho=1.0):
    """Refuse noise levels that can't be laid out: `num_steps` >= 1 and whole, 0 < `sigma_min` < `sigma_max`, `rho` > 0.

    One step goes from `sigma_max` to 0 and needs no `sigma_min` below it, so equality is allowed there.
    """
    check_count("num_steps", num_steps)
    check_number("sigma_min", sigma_min, above=0)
    check_number("sigma_max", sigma_max, above=0, at_most=LARGEST)
    check_number("rho", rho, above=0, at_most=1e6)
    if sigma_min > sigma_max or (sigma_min == sigma_max and num_steps > 1):
        raise ValueError(f"sigma_min is {sigma_min!r} and sigma_max is {sigma_max!r}; sigma_min must be smaller.")
    if sigma_min < 1e-30 or max(abs(math.log(sigma_min)), abs(math.log(sigma_max))) / rho > 700:
        raise ValueError(f"sigma from {sigma_min!r} to {sigma_max!r} with rho {rho!r} exceeds what a float64 can hold.")


def check_churn(S_churn, S_min, S_max, S_noise):
    """Refuse churn settings (Algorithm 2) that are negative, NaN, or an empty range of sigma."""
    check_number("S_churn", S_churn, at_least=0, infinite=True)
    check_number("S_min", S_min, at_least=0)
    check_number("S_max", S_max, at_least=0, infinite=True)
    check_number("S_noise", S_noise, at_least=0)
    if S_min > S_max:
        raise ValueError(
            f"S_min is {S_min!r} and S_max is {S_max!r}; churn happens between them: S_min must not be larger."
        )


def check_images(x, img_channels=None, name="x", like=None, minimum=0):
    """Refuse anything but a floating-point tensor (B, C, H, W), B at least `minimum`.

    Where they are given, C must be `img_channels`, and (C, H, W) those of the images `like` (N, C, H, W).
    """
    if not isinstance(x, torch.Tensor) or x.ndim != 4 or x.dtype not in FLOATS:
        found = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"{name} is {found}; it must be a floating-point tensor (batch, channels, height, width).")
    if img_channels is not None and x.shape[1] != img_channels:
        raise ValueError(f"{name} has {x.shape[1]} channels, shape {tuple(x.shape)}; this model takes {img_channels}.")
    if like is not None and x.shape[1:] != like.shape[1:]:
        C, H, W = like.shape[1:]
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be (batch, {C}, {H}, {W}).")
    if len(x) < minimum:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it must hold {minimum} or more.")


def readable(tensor):
    """Whether the values of `tensor` can be looked at for free: on the CPU, outside a graph that is being compiled."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_finite(name, tensor, values=False):
    """Refuse a tensor with NaN or infinite entries; one that is not on the CPU only with `values=True`."""
    if (values or readable(tensor)) and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} contains NaN or infinite values.")


def levels_of(dtype):
    """The noise levels that `dtype` can hold, as (low, high): above `low`, so that none is 0, and at most `high`."""
    if dtype not in FLOATS:
        raise ValueError(f"x is {dtype}; it must be floating point, as noisy images are.")
    limits = torch.finfo(dtype)
    return limits.tiny * limits.eps / 2, min(LARGEST, limits.max)  # half the smallest number rounds to 0


def check_sigma(sigma, x):
    """Return `sigma` as (B, 1, 1, 1) with the dtype and on the device of `x` (B, ...).

    `sigma` is a number, a tensor with one element, (B,) or (B, 1, 1, 1). Raises `ValueError` for another shape
    and, for numbers and CPU tensors, for values that are not finite and positive, or not so in the dtype of `x`.
    """
    low, high = levels_of(x.dtype)
    if not isinstance(sigma, torch.Tensor):
        check_number("sigma", sigma, above=0, at_most=LARGEST)
        if not low < sigma <= high:
            raise ValueError(f"sigma is {sigma!r}; for x of {x.dtype} it must be above {low:.3g} and at most {high:g}.")
    elif sigma.dtype not in FLOATS + INTEGERS:
        raise ValueError(f"sigma is {sigma.dtype}; noise levels must be real numbers, such as float32.")
    elif readable(sigma) and not bool((fine := sigma.isfinite() & (sigma > low) & (sigma <= high)).all()):
        raise ValueError(
            f"sigma contains {sigma[~fine][0].item()!r}; for x of {x.dtype}, noise levels must be above {low:.3g} and "
            f"at most {high:g}."
        )
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if sigma.numel() != 1 and tuple(sigma.shape) not in {(len(x),), (len(x), 1, 1, 1)}:
        raise ValueError(
            f"sigma has shape {tuple(sigma.shape)}; for {len(x)} images it must be a number, "
            f"({len(x)},) or ({len(x)}, 1, 1, 1)."
        )
    return sigma.reshape(-1, 1, 1, 1).expand(len(x), 1, 1, 1)


def check_labels(class_labels, label_dim, x, values=False):
    """Return class labels for the images `x` as one-hot float32 (B, label_dim) on their device; None without classes.

    `class_labels` is None (all zeros: no class), integers (B,) or one-hot (B, `label_dim`). Raises `ValueError`
    for another shape, for labels given to a model without classes and, on the CPU or with `values=True`, for
    integers outside [0, `label_dim`).
    """
    batch = len(x)
    if class_labels is None:
        return torch.zeros(batch, label_dim, device=x.device) if label_dim else None
    if not label_dim:
        raise ValueError("class_labels were given, but this model has no classes (label_dim is 0); leave them out.")
    try:
        class_labels = torch.as_tensor(class_labels)
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"class_labels is {class_labels!r}, which makes no tensor: {error}") from error
    if class_labels.shape == (batch, label_dim) and class_labels.dtype in FLOATS + INTEGERS:
        return class_labels.to(x.device, torch.float32)
    if class_labels.shape != (batch,) or class_labels.dtype not in INTEGERS:
        raise ValueError(
            f"class_labels is {class_labels.dtype} of shape {tuple(class_labels.shape)}; for {batch} images it must be "
            f"integers ({batch},) or one-hot ({batch}, {label_dim})."
        )
    if values or readable(class_labels):
        outside = class_labels[(class_labels < 0) | (class_labels >= label_dim)]
        if len(outside):
            raise ValueError(
                f"class_labels contains {outside[0].item()}; this model's classes are 0 to {label_dim - 1}."
            )
    classes = torch.arange(label_dim, device=x.device)
    return (class_labels.to(x.device)[:, None] == classes).float()  # F.one_hot would stop a GPU on a bad label


def check_augment_labels(augment_labels, augment_dim, x):
    """Return augmentation labels for the images `x` as float32 (B, `augment_dim`) on their device; None stays None.

    None means all zeros: nothing was done. Raises `ValueError` for another shape or dtype, and for labels given to a
    network without them (`augment_dim` 0), which would learn to draw augmented images. An `augment_dim` of None is that
    of a network that does not say: it gets what was given.
    """
    if augment_labels is None or augment_dim is None:
        return augment_labels
    if not augment_dim:
        raise ValueError(
            "augment_labels were given, but this network takes none (augment_dim is 0), so augmentation would leak "
            "into what it draws; build it with augment_dim, or leave augmentation out."
        )
    found = augment_labels if isinstance(augment_labels, torch.Tensor) else None
    if found is None or found.shape != (len(x), augment_dim) or found.dtype not in FLOATS + INTEGERS:
        what = type(augment_labels).__name__ if found is None else f"{found.dtype} of shape {tuple(found.shape)}"
        raise ValueError(f"augment_labels is {what}; for {len(x)} images it must be numbers ({len(x)}, {augment_dim}).")
    return augment_labels.to(x.device, torch.float32)


def check_answer(F, x):
    """Return the part of a network's answer `F` that is shaped like `x` (B, C, H, W): all of it, or the first half.

    Twice the channels are those of a network that also learns variances (iDDPM), behind the image; they are left out.
    Raises `ValueError` for any other shape, which could spread over `x` unnoticed.
    """
    B, C, H, W = x.shape
    if tuple(F.shape) not in ((B, C, H, W), (B, 2 * C, H, W)):
        raise ValueError(
            f"the network answers {tuple(F.shape)} to x of shape {(B, C, H, W)}; it must answer in the same shape, or "
            f"with {2 * C} channels, of which the last {C} are learned variances."
        )
    return F[:, :C]
