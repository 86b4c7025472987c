"""Images as one uint8 tensor on the device; batches are cut and normalised there."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from edm_lesson.checks import FLOATS, INTEGERS, check_count, check_number, readable


@dataclass(frozen=True)
class Images:
    """A data set: `pixels` uint8 (N, C, H, W), of at least one image, and `labels` (N,), whole numbers, on one device.

    `offset` is 0, or the mean that is subtracted from normalised images so that they are centred: one number a channel,
    or one for all. Raises `ValueError` for anything else; the values of labels are looked at only on the CPU.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    offset: tuple[float, ...] = (0.0,)

    def __post_init__(self):
        pixels, labels = self.pixels, self.labels
        if not isinstance(pixels, torch.Tensor) or pixels.dtype != torch.uint8 or pixels.ndim != 4 or not len(pixels):
            raise ValueError(f"pixels is {_found(pixels)}; it must be a uint8 tensor (N, C, H, W) with N at least 1.")
        count, channels = pixels.shape[:2]
        if (
            not isinstance(labels, torch.Tensor)
            or labels.dtype not in INTEGERS + FLOATS
            or tuple(labels.shape) != (count,)
        ):
            raise ValueError(
                f"labels is {_found(labels)}; for {count} images it must be a tensor ({count},) of numbers."
            )
        if readable(labels) and len(wrong := labels[(labels < 0) | (labels != labels.floor())]):
            raise ValueError(f"labels contains {wrong[0].item()}; labels must be whole numbers, 0 or more.")
        if not isinstance(self.offset, (tuple, list)) or len(self.offset) not in (1, channels):
            numbers = " or ".join(map(str, sorted({1, channels})))
            raise ValueError(f"offset is {self.offset!r}; it must be a tuple of {numbers} number(s).")
        for number in self.offset:
            check_number("offset", number)

    def __len__(self):
        return len(self.pixels)

    def to(self, device):
        """The same images on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def batch(self, indices=slice(None)):
        """The images at `indices` as float32 in [-1, 1], less the offset: (B, C, H, W)."""
        return normalize(self.pixels[indices], self.offset)

    def padded(self, img_resolution):
        """The same images with a border of 0 (black) around them, `img_resolution` pixels wide and high.

        Raises `ValueError` where they are larger than that already.
        """
        height, width = self.pixels.shape[-2:]
        check_count("img_resolution", img_resolution, minimum=max(height, width))
        down, right = img_resolution - height, img_resolution - width
        return replace(self, pixels=F.pad(self.pixels, (right // 2, right - right // 2, down // 2, down - down // 2)))

    def centred(self):
        """The same images with their mean, channel by channel, as offset, so that batches have mean 0."""
        mean = self.pixels.double().mean(dim=(0, 2, 3)) / 127.5 - 1
        return replace(self, offset=tuple(mean.tolist()))

    def statistics(self):
        """Mean, standard deviation and root mean square of the normalised pixels, as a dictionary of numbers."""
        counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in self.pixels.unbind(1)]).double()
        values = normalize(torch.arange(256), (0.0,)).double() - torch.tensor(self.offset, dtype=torch.float64)[:, None]
        shares = counts.cpu() / counts.sum().cpu()
        mean = (shares * values).sum().item()
        variance, square = [(shares * (values - middle) ** 2).sum().item() for middle in (mean, 0)]
        return {"mean": mean, "std": variance**0.5, "rms": square**0.5}


def _found(value):
    """What `value` is, for messages: dtype and shape of a tensor, else its type."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def normalize(pixels, offset=(0.0,)):
    """uint8 pixels to float32 in [-1, 1], less the `offset` of each channel; the inverse of `to_uint8`."""
    x = pixels.float() / 127.5 - 1
    if not any(offset):
        return x
    return x - torch.tensor(offset, dtype=x.dtype).reshape(-1, 1, 1).to(x.device, non_blocking=True)


def to_uint8(x, offset=(0.0,)):
    """Images in [-1, 1], less their `offset`, to uint8 pixels of the same shape; what lies outside is clipped."""
    x = x.float() + x.new_tensor(offset, dtype=torch.float32).reshape(-1, 1, 1)
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def save_grid(pixels, path, columns=8, scale=3):
    """Write uint8 images (N, C, H, W) to the PNG `path`, in rows of `columns`, each pixel `scale` pixels wide."""
    from torchvision.transforms.functional import to_pil_image  # takes a second, so only where it is needed
    from torchvision.utils import make_grid

    grid = make_grid(pixels, nrow=columns, padding=1, pad_value=0)
    to_pil_image(grid.repeat_interleave(scale, 1).repeat_interleave(scale, 2)).save(path)


def choose_device(device=None):
    """The device of that name, or the best there is: "cuda", else "mps" (Apple), else "cpu".

    Raises `ValueError` for a name that torch doesn't know and for a device that this machine lacks.
    """
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=device or best).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device is {str(device)!r}, which can't be used here; this machine's best is {best!r}."
        ) from error
