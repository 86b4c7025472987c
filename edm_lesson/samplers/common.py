"""What the samplers share: how they look at their input and at the denoiser."""

import math

import torch

from edm_lesson.checks import check_finite, check_images, check_labels, check_number, levels_of


def state_of(latents):
    """`latents` in the precision that a sampler keeps its state in: float64, or float32 where the device has none."""
    return latents.to(torch.float32 if latents.device.type == "mps" else torch.float64)


def prepare_denoiser(denoiser, latents, class_labels):
    """Check a sampler's input once and return `denoise(x, sigma)` for numbers sigma.

    The denoiser sees x in the latents' dtype and sigma as (B,), which every EDM code understands; `class_labels`
    are handed over only where they are given. What it returns is converted to the precision of the state. Raises
    `ValueError` where that dtype can't hold a level, where the denoiser's answer is not shaped like x and, on the CPU,
    where it is not finite.
    """
    check_images(latents, getattr(denoiser, "img_channels", None), name="latents")
    check_finite("latents", latents, values=True)
    if class_labels is not None and hasattr(denoiser, "label_dim"):
        class_labels = check_labels(class_labels, denoiser.label_dim, latents, values=True)
    extra = () if class_labels is None else (class_labels,)
    lowest, _ = levels_of(latents.dtype)

    def denoise(x, sigma):
        check_number("sigma", sigma, above=lowest, at_most=torch.finfo(latents.dtype).max)
        denoised = denoiser(x.to(latents.dtype), latents.new_full((len(x),), sigma), *extra)
        if denoised.shape != x.shape:
            raise ValueError(
                f"the denoiser answers {tuple(denoised.shape)} to x of shape {tuple(x.shape)} and sigma of shape "
                f"({len(x)},); it must answer in the shape of x."
            )
        check_finite(f"the denoiser's answer at sigma {sigma:g}", denoised)
        return denoised.to(x.dtype)

    return denoise


def clip_levels(denoiser, sigma_min, sigma_max):
    """`sigma_min` and `sigma_max` clipped to the range of the denoiser; `ValueError` where the two don't overlap."""
    lowest, highest = float(getattr(denoiser, "sigma_min", 0.0)), float(getattr(denoiser, "sigma_max", math.inf))
    if sigma_min > highest or sigma_max < lowest:
        raise ValueError(
            f"The sampler was asked for sigma from {sigma_min:g} to {sigma_max:g}, but this denoiser knows only "
            f"{lowest:g} to {highest:g}; choose sigma_min and sigma_max within that."
        )
    return max(sigma_min, lowest), min(sigma_max, highest)


def level_rounding(denoiser):
    """The denoiser's `round_sigma` as a function from number to number; the identity where it has none."""
    if not hasattr(denoiser, "round_sigma"):
        return float
    return lambda sigma: float(denoiser.round_sigma(torch.tensor(sigma, dtype=torch.float64)))
