"""Images in any number, each with a seed of its own."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from edm_lesson.checks import check_count, checked
from edm_lesson.samplers.edm import Denoiser, edm_sampler


class SeededNoise:
    """Noise with a seed of its own for every image, so that an image does not depend on its batch.

    Drawn on the CPU, so that every device gets the same: first `latents`, then what a sampler asks of `randn_like`.
    """

    def __init__(self, seeds: Iterable[int], device: str | torch.device = "cpu"):
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.device = device

    def latents(self, shape: Sequence[int]) -> Tensor:
        """float32 noise (number of seeds, *shape) of unit variance."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self.generators]).to(self.device)

    def randn_like(self, x: Tensor) -> Tensor:
        """Noise like `x`, whose first dimension must be the number of seeds."""
        if len(x) != len(self.generators):
            raise ValueError(f"x holds {len(x)} images, but there are {len(self.generators)} seeds.")
        return self.latents(x.shape[1:]).to(x)


check_batch = partial(check_count, maximum=10_000)
check_seed = partial(check_count, minimum=0, maximum=2**32 - 1)


@checked(num_samples=check_count, batch_size=check_batch, seed=check_seed, first=check_seed)
def sample_images(
    denoiser: Denoiser, num_samples: int, *, seed: int = 0, first: int = 0, classes: Sequence[int] | None = None,
    batch_size: int = 64, progress: bool = False, sampler: Callable = edm_sampler, **settings: Any,
) -> Tensor:  # fmt: skip
    """`num_samples` images from a denoiser, float32 (N, C, H, W) on the CPU: those of `seed` from number `first` on.

    Of seed 0, image number i comes from `SeededNoise([i])`, whatever the batch size. Other seeds begin elsewhere among
    the 2³² states of PyTorch's generator, so far apart that they share no image. `classes` are drawn in turn;
    `settings` go to `sampler`, and a `randn_like` with these seeds, where it takes one. Size and device are those of
    the denoiser: its `img_channels`, `img_resolution` and weights.
    """
    if classes is not None:
        check_count("len(classes)", len(classes))
    channels, resolution = (getattr(denoiser, name, None) for name in ("img_channels", "img_resolution"))
    if channels is None or resolution is None:
        missing = f"the {type(denoiser).__name__} does not say what to draw by img_channels and img_resolution"
        raise ValueError(f"{missing}; set them, or call a sampler, such as edm_sampler, with latents of that size.")
    parameters = denoiser.parameters() if hasattr(denoiser, "parameters") else ()
    device = next((parameter.device for parameter in parameters), torch.device("cpu"))
    takes = inspect.signature(sampler).parameters.values()
    takes_noise = any(each.name == "randn_like" or each.kind == each.VAR_KEYWORD for each in takes)
    samples = torch.empty((num_samples, channels, resolution, resolution), dtype=torch.float32, device="cpu")
    origin = int(seed) * 0x9E3779B1 + first  # the golden ratio of 2³², whose multiples keep away from each other
    for start in tqdm(range(0, num_samples, batch_size), unit="batch", disable=not progress):
        numbers, labels = range(start, min(start + batch_size, num_samples)), None
        noise = SeededNoise([(origin + number) % 2**32 for number in numbers], device)
        if classes is not None:
            labels = torch.tensor([classes[number % len(classes)] for number in numbers], device=device)
        latents = noise.latents((channels, resolution, resolution))
        settings |= {"randn_like": noise.randn_like} if takes_noise else {}
        samples[start : numbers.stop] = sampler(denoiser, latents, labels, **settings)
    return samples
