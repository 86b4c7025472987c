"""Non-leaking augmentation: more pictures to train on, and for each the labels that say what was done (Appendix F.2).

The denoiser sees the labels beside the picture, so it can tell a turned digit from an upright one; at sampling the
labels are all 0, "nothing was done", and no turned digits come out.

A transformation is a matrix (B, 3, 3), one for each image, and says where every pixel of the new picture is taken
from: it maps the pixel's (x, y, 1) to a place in the old picture, both in pixels from the centre, x to the right and
y down. So the matrix of several transformations is their product, the first one on the left.
"""

import math
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from edm_lesson.checks import check_images, checked, not_negative, probability


def affine(
    xx: Tensor, xy: Tensor | float, yx: Tensor | float, yy: Tensor | float, x: Tensor | float = 0, y: Tensor | float = 0
) -> Tensor:
    """The matrices (B, 3, 3) with rows (`xx`, `xy`, `x`), (`yx`, `yy`, `y`), (0, 0, 1): numbers, and `xx` (B,)."""
    zero = torch.zeros_like(xx)
    entries = [zero + entry for entry in (xx, xy, x, yx, yy, y, 0, 0, 1)]
    return torch.stack(entries, dim=1).reshape(-1, 3, 3)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The matrices (B, 3, 3) of `first`, and then `second`: their product, in full precision under autocast too."""
    return (first[:, :, :, None] * second[:, None, :, :]).sum(2)


def flip(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Exchange left and right where `x` (B,) is 1, top and bottom where `y` is 1, and leave what is 0.

    Like all transformations here: the matrices (B, 3, 3) and their labels, here (B, 2): `x` and `y`.
    """
    return affine(1 - 2 * x, 0, 0, 1 - 2 * y), torch.stack([x, y], dim=1)


def scale(n: Tensor) -> tuple[Tensor, Tensor]:
    """Enlarge 2^(0.2 `n`) times; label `n`, (B, 1)."""
    shrink = 2 ** (-0.2 * n)
    return affine(shrink, 0, 0, shrink), n[:, None]


def rotate(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Turn counter-clockwise by `angle`, in radians; labels cos - 1 and sin, (B, 2), which know no full turns."""
    cos, sin = angle.cos(), angle.sin()
    return affine(cos, -sin, sin, cos), torch.stack([cos - 1, sin], dim=1)


def stretch(n: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Enlarge 2^(0.2 `n`) times along the axis at `angle`, and shrink as much across; labels n cos and n sin, (B, 2).

    Angles up to a quarter turn either way are all axes there are; beyond, a label could mean both `n` and -`n`.
    """
    shrink = 2 ** (-0.2 * n)
    to_axis, back = rotate(-angle)[0], rotate(angle)[0]
    matrix = compose(compose(to_axis, affine(shrink, 0, 0, 1 / shrink)), back)
    return matrix, torch.stack([n * angle.cos(), n * angle.sin()], dim=1)


def translate(x: Tensor, y: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Move right by `x` and down by `y`, in eighths of the image's `width` and `height`; labels `x` and `y`, (B, 2)."""
    return affine(torch.ones_like(x), 0, 0, 1, -x * width / 8, -y * height / 8), torch.stack([x, y], dim=1)


def resample(images: Tensor, matrix: Tensor) -> Tensor:
    """The `images` (B, C, H, W), each pixel taken from where `matrix` (B, 3, 3) says; outside, they are mirrored.

    Bicubic halfway between pixels and linear from there: on turned digits 0.6 of the error of linear interpolation.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    x, y = torch.meshgrid(x, y, indexing="xy")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    places = (matrix[:, None, None, :2] * pixels[:, :, None]).sum(-1) / pixels[-1, -1, :2]  # the corner is at (1, 1)

    fine = images.to(torch.promote_types(images.dtype, torch.float32))
    fine = F.interpolate(fine, size=(2 * height - 1, 2 * width - 1), mode="bicubic", align_corners=True)
    resampled = F.grid_sample(fine, places.to(fine.dtype), padding_mode="reflection", align_corners=True)
    return resampled.to(images.dtype)


class AugmentPipe:
    """EDM's augmentation: `augment(images)` gives the transformed images and their labels (Appendix F.2).

    Each transformation happens to an image with probability `p` times its multiplier (0 leaves it out), in this order:

    xflip, yflip : left and right, top and bottom are exchanged, if a coin says so, too. `xflip` ignores `p`, unless
        that is 0, so half of the images are flipped. Leave both out for digits: a mirrored 2 is none.
    scale : enlarged 2^(0.2 N) times, N ~ N(0, 1).
    rotate : turned by any angle.
    aniso : enlarged 2^(0.2 N) times along an axis and shrunk across it; every other time the axis is turned.
    translate : moved by N eighths of the image's size, right and down.
    """

    label_dim = 9  # x flip, y flip, scale, 2 of rotation, 2 of anisotropy, 2 of translation

    @checked(p=probability, **dict.fromkeys(("xflip", "yflip", "scale", "rotate", "aniso", "translate"), not_negative))
    def __init__(
        self, p: float = 0.12, xflip: float = 1.0, yflip: float = 1.0, scale: float = 1.0, rotate: float = 1.0,
        aniso: float = 1.0, translate: float = 1.0,
    ):  # fmt: skip
        self.p, self.xflip, self.yflip = p, xflip, yflip
        self.scale, self.rotate, self.aniso, self.translate = scale, rotate, aniso, translate

    def draw(self, images: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """What to do to each of the `images` (B, C, H, W): matrices (B, 3, 3) and labels (B, 9)."""
        settings = {"generator": generator, "device": images.device}
        height, width = images.shape[2:]

        def happens(probability):
            return (torch.rand(len(images), **settings) < probability).float()

        def normal():
            return torch.randn(len(images), **settings)

        def angle():
            return math.pi * (2 * torch.rand(len(images), **settings) - 1)

        moved = happens(self.p * self.translate)
        steps = [
            flip(happens(self.xflip) * happens(0.5), happens(self.p * self.yflip) * happens(0.5)),
            scale(happens(self.p * self.scale) * normal()),
            rotate(happens(self.p * self.rotate) * angle()),
            stretch(happens(self.p * self.aniso) * normal(), happens(0.5) * angle() / 2),
            translate(moved * normal(), moved * normal(), width, height),
        ]
        matrices, labels = zip(*steps, strict=True)
        return reduce(compose, matrices), torch.cat(labels, dim=1)

    @checked(images=check_images)
    def __call__(self, images: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The augmented `images` (B, C, H, W), bit for bit the same where labels are 0, and labels, float32 (B, 9)."""
        if self.p == 0:
            return images, torch.zeros(len(images), self.label_dim, device=images.device)
        matrix, labels = self.draw(images, generator)
        touched = labels.any(dim=1).reshape(-1, 1, 1, 1)
        return torch.where(touched, resample(images, matrix), images), labels
