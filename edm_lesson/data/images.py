"""Images as one uint8 tensor on the device; batches are cut and normalized there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from edm_lesson import visible
from edm_lesson.checks import FLOATS, INTEGERS, check_count, readable
from edm_lesson.data.files import written


@dataclass(frozen=True)
class Images:
    """A data set on one device: `pixels`, uint8 (N, C, H, W), and `labels` (N,), whole numbers, 0 or more.

    `class_names` are those of the labels 0, 1, …; `notes` say what was left out or changed. `print` shows all that.
    """

    pixels: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or not pixels.numel():
            found = f"{pixels.dtype} {tuple(pixels.shape)}"
            raise ValueError(f"pixels is {found}; it must be torch.uint8 (N, C, H, W), each at least 1.")
        if labels.dtype not in INTEGERS + FLOATS or labels.shape != pixels.shape[:1]:
            found = f"{labels.dtype} {tuple(labels.shape)}"
            raise ValueError(f"labels is {found}; it must be numbers ({len(pixels)},), one for each image.")
        if readable(labels) and len(wrong := labels[(labels < 0) | (labels != labels.floor())]):
            raise ValueError(f"labels contains {wrong[0].item()}; labels must be whole numbers, 0 or more.")

    def __len__(self) -> int:
        return len(self.pixels)

    def __str__(self) -> str:
        labels, counts = (each.tolist() for each in self.labels.unique(return_counts=True))
        parts = [f"{len(self):,} images of {tuple(self.pixels.shape[1:])}", *self.notes]
        if self.class_names or len(labels) > 1:
            parts.insert(1, f"classes: {name_classes([int(label) for label in labels], self.class_names, counts)}")
        return "; ".join(parts)

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def batch(self, indices: Tensor | list[int] | slice = slice(None)) -> Tensor:
        """The images at `indices` as float32 in [-1, 1]: (B, C, H, W)."""
        return normalize(self.pixels[indices])

    def padded(self, img_resolution: int) -> "Images":
        """The same images with a border of 0 (black) around them, `img_resolution` pixels wide and high."""
        height, width = self.pixels.shape[-2:]
        check_count("img_resolution", img_resolution, minimum=max(height, width))
        down, right = img_resolution - height, img_resolution - width
        border = (right // 2, right - right // 2, down // 2, down - down // 2)
        return replace(self, pixels=F.pad(self.pixels, border))

    def mean(self) -> Tensor:
        """The mean of each channel in [-1, 1], float32 (C, 1, 1), on the images' device."""
        shares, shades = self._shares()
        return (shares @ shades).float().reshape(-1, 1, 1).to(self.pixels.device)

    def statistics(self, center: bool = False) -> dict[str, float]:
        """Mean, standard deviation and RMS of the pixels in [-1, 1], with `center` less the mean of their channel."""
        shares, shades = self._shares()
        values = shades - (shares @ shades)[:, None] * center
        mean = (shares * values).sum(dim=1).mean().item()
        variance, square = [(shares * (values - middle) ** 2).sum(dim=1).mean().item() for middle in (mean, 0)]
        return {"mean": mean, "std": variance**0.5, "rms": square**0.5}

    def _shares(self):
        """The share that each of the 256 shades has in each channel, (C, 256), and the shades in [-1, 1]."""
        counts = torch.zeros(self.pixels.shape[1], 256, dtype=torch.long, device=self.pixels.device)
        for some in self.pixels.split(256):  # few at a time, of which a copy is made
            counts += torch.stack([channel.flatten().bincount(minlength=256) for channel in some.unbind(1)])
        return counts.cpu().double() / counts[0].sum().item(), normalize(torch.arange(256)).double()


def name_classes(labels: Sequence[int], names: Sequence[str], counts: Sequence[int] = (), most: int = 20) -> str:
    """Classes as text, at most so many: "0 cat (12), 1 dog (7)"; a name that is the number is not said twice."""
    words = []
    for label, count in zip_longest(labels[:most], counts[:most]):
        name = visible(names[label]) if label < len(names) else ""
        word = f"{label} {name}" if name not in ("", str(label)) else f"{label}"
        words.append(word if count is None else f"{word} ({count:,})")
    return ", ".join(words) + f", … ({len(labels):,} classes)" * (len(labels) > most)


def normalize(pixels: Tensor) -> Tensor:
    """uint8 pixels to float32 in [-1, 1], of the same shape; the inverse of `to_uint8`."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8 pixels of the same shape; what lies outside is clipped."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def save_grid(pixels: Tensor, path: str | Path) -> None:
    """Write uint8 images (N, C, H, W) to the PNG `path`, in rows of eight, each pixel three pixels wide."""
    from torchvision.transforms.functional import to_pil_image  # takes a second, so only where it is needed
    from torchvision.utils import make_grid

    grid = make_grid(pixels, padding=1).repeat_interleave(3, 1).repeat_interleave(3, 2)
    with written(path) as part:
        to_pil_image(grid).save(part)


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """The device of that name, or the best there is: "cuda", else "mps" (Apple), else "cpu"."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        number = torch.ones(1, device=device or best)
        number.item()  # which a device without data, such as "meta", can't tell
        return number.device
    except (RuntimeError, AssertionError, ModuleNotFoundError) as error:
        raise ValueError(f"device is {str(device)!r}, which can't be used here; the best is {best!r}.") from error
