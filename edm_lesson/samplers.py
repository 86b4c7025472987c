"""Sampling: steps down the noise levels, from pure noise to an image (Algorithms 1 and 2).

A denoiser is anything that maps (x, sigma) to an estimate of the clean images. `sigma` is a number here.
"""

import math
from itertools import pairwise

import torch
from tqdm.auto import tqdm

from edm_lesson.checks import check_churn, check_count, check_finite, check_images, check_labels, check_levels
from edm_lesson.schedules import edm_sigmas


def euler_step(denoiser, x, sigma, sigma_next):
    """One Euler step of the probability flow ODE from `sigma` to `sigma_next`: the new x, and D(x; sigma).

    The slope is dx/dsigma = (x - D) / sigma (Eq. 4 with sigma(t) = t and s(t) = 1). One denoiser evaluation.
    """
    denoised = denoiser(x, sigma)
    d = (x - denoised) / sigma  # Alg. 1, line 4
    return x + (sigma_next - sigma) * d, denoised  # Alg. 1, line 5


def heun_step(denoiser, x, sigma, sigma_next):
    """One Heun step from `sigma` to `sigma_next`: the new x, and D(x; sigma) (Algorithm 1, lines 4 to 8).

    An Euler step, then the same step with the mean of the slopes at both ends. Two denoiser evaluations; one
    where `sigma_next` is 0, where the slope is not defined and Euler's step stands.
    """
    x_next, denoised = euler_step(denoiser, x, sigma, sigma_next)
    if sigma_next == 0:
        return x_next, denoised
    d = (x - denoised) / sigma
    d_next = (x_next - denoiser(x_next, sigma_next)) / sigma_next  # Alg. 1, line 7
    return x + (sigma_next - sigma) * (d + d_next) / 2, denoised  # Alg. 1, line 8


def add_churn(
    x, sigma, num_steps, S_churn, S_min=0.0, S_max=math.inf, S_noise=1.0, randn_like=torch.randn_like, round_sigma=float
):
    """Add fresh noise before a step, so that it starts a little higher (Algorithm 2, lines 4 to 6): new x and sigma.

    `S_churn` is spread over `num_steps` steps and acts only where `S_min` <= `sigma` <= `S_max`. `S_noise`
    scales the noise; `round_sigma` maps the raised level to one that the denoiser knows.
    """
    gamma = min(S_churn / num_steps, math.sqrt(2) - 1) if S_min <= sigma <= S_max else 0.0
    if gamma == 0:
        return x, sigma
    sigma_hat = round_sigma(sigma * (1 + gamma))  # Alg. 2, line 5
    added = math.sqrt(max(sigma_hat**2 - sigma**2, 0.0))
    return x + added * S_noise * randn_like(x), sigma_hat  # Alg. 2, line 6


@torch.no_grad()
def edm_sampler(
    denoiser,
    latents,
    class_labels=None,
    *,
    num_steps=18,
    sigma_min=0.002,
    sigma_max=80.0,
    rho=7.0,
    S_churn=0.0,
    S_min=0.0,
    S_max=math.inf,
    S_noise=1.0,
    randn_like=torch.randn_like,
    callback=None,
):
    """EDM's stochastic sampler (Algorithm 2); with `S_churn` 0 the deterministic one (Algorithm 1).

    Parameters
    ----------
    denoiser : (x, sigma) or (x, sigma, class_labels) -> D(x; sigma), shaped like x.
    latents : noise of unit variance, (B, C, H, W). The result has its shape, dtype and device.
    class_labels : as the denoiser takes them; None for none.
    num_steps, sigma_min, sigma_max, rho : the noise levels (`edm_sigmas`), clipped to the denoiser's own
        `sigma_min` and `sigma_max` and rounded by its `round_sigma`, where it has them.
    S_churn, S_min, S_max, S_noise : how much noise to add, where, and how strong (`add_churn`).
    randn_like : draws the noise of churn; see `SeededNoise` for one seed an image.
    callback : called at every step as `callback(step, sigma, x, denoised)`: the level that the step starts from
        (after churn), the images there and D(x; sigma).

    2 * num_steps - 1 denoiser evaluations. Raises `ValueError` for impossible settings (see `checks`), latents
    that are not finite floating-point images, labels that the denoiser does not have, and a range of sigma
    without overlap with the denoiser's.
    """
    check_levels(num_steps, sigma_min, sigma_max, rho)
    check_churn(S_churn, S_min, S_max, S_noise)
    denoise = prepare_denoiser(denoiser, latents, class_labels)
    sigma_min, sigma_max = clip_levels(denoiser, sigma_min, sigma_max)
    round_sigma = level_rounding(denoiser)
    sigmas = [round_sigma(sigma) for sigma in edm_sigmas(num_steps, sigma_min, sigma_max, rho)[:-1].tolist()] + [0.0]

    x = state_of(latents) * sigmas[0]  # Alg. 2, line 2
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma = add_churn(x, sigma, num_steps, S_churn, S_min, S_max, S_noise, randn_like, round_sigma)
        x_next, denoised = heun_step(denoise, x, sigma, sigma_next)
        if callback is not None:
            callback(step, sigma, x, denoised)
        x = x_next
    return x.to(latents.dtype)


def state_of(latents):
    """`latents` in the precision that a sampler keeps its state in: float64, or float32 where the device has none."""
    return latents.to(torch.float32 if latents.device.type == "mps" else torch.float64)


def prepare_denoiser(denoiser, latents, class_labels):
    """Check a sampler's input once and return `denoise(x, sigma)` for numbers sigma.

    The denoiser sees x in the latents' dtype and sigma as (B,), which every EDM code understands; `class_labels`
    are handed over only where they are given. What it returns is converted to the precision of the state.
    """
    check_images(latents, getattr(denoiser, "img_channels", None), name="latents")
    check_finite("latents", latents, values=True)
    if class_labels is not None and hasattr(denoiser, "label_dim"):
        class_labels = check_labels(class_labels, denoiser.label_dim, latents, values=True)
    extra = () if class_labels is None else (class_labels,)

    def denoise(x, sigma):
        return denoiser(x.to(latents.dtype), latents.new_full((len(x),), sigma), *extra).to(x.dtype)

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


class SeededNoise:
    """Noise with a seed of its own for every image, so that an image does not depend on its batch.

    Drawn on the CPU, so that every device gets the same. `SeededNoise(range(8)).latents((1, 28, 28))` are
    latents (8, 1, 28, 28); its method `randn_like` goes into a sampler and draws on from there.
    """

    def __init__(self, seeds, device="cpu"):
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.device = device

    def latents(self, shape):
        """float32 noise (number of seeds, *shape) of unit variance."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self.generators]).to(self.device)

    def randn_like(self, x):
        """Noise like `x`, whose first dimension must be the number of seeds."""
        if len(x) != len(self.generators):
            raise ValueError(
                f"x holds {len(x)} images, but there are {len(self.generators)} seeds; they must be as many."
            )
        return self.latents(x.shape[1:]).to(x)


def sample_images(denoiser, num_samples, *, seed=0, classes=None, batch_size=64, progress=False, **settings):
    """`num_samples` images from a denoiser, float32 (N, C, H, W) on the CPU.

    Image number i comes from the seed `seed` + i, whatever the batch size; `classes` are drawn in turn. `settings`
    go to `edm_sampler`. Raises `ValueError` as that does.
    """
    check_count("num_samples", num_samples)
    check_count("batch_size", batch_size)
    check_count("seed", seed, minimum=0)
    device = next((parameter.device for parameter in denoiser.parameters()), torch.device("cpu"))
    shape = (denoiser.img_channels, denoiser.img_resolution, denoiser.img_resolution)
    batches = []
    for start in tqdm(range(0, num_samples, batch_size), unit="batch", disable=not progress):
        numbers = range(start, min(start + batch_size, num_samples))
        noise = SeededNoise([seed + number for number in numbers], device)
        labels = (
            None
            if classes is None
            else torch.tensor([classes[number % len(classes)] for number in numbers], device=device)
        )
        batches.append(
            edm_sampler(denoiser, noise.latents(shape), labels, randn_like=noise.randn_like, **settings).float().cpu()
        )
    return torch.cat(batches)
