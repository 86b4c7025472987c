"""The building blocks that the U-Nets share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edm_lesson.checks import check_count


class GroupNorm(nn.GroupNorm):
    """GroupNorm with at most 32 groups, of four channels or more each; in float32 also under autocast.

    Means and variances of half-precision numbers lose digits, and on a CPU they take three times as long.
    """

    def __init__(self, channels: int):
        super().__init__(math.gcd(channels, min(32, max(channels // 4, 1))), channels)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def zero_init(layer: nn.Module) -> nn.Module:
    """Return `layer` with weights and bias at zero, so that it adds nothing before training."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class PositionalEmbedding(nn.Module):
    """Cosines and sines of c_noise (B,) at frequencies from 1 to 1 / `max_positions`: (B, `num_channels`)."""

    def __init__(self, num_channels: int, max_positions: int = 10000):
        super().__init__()
        exponents = torch.linspace(0, 1, num_channels // 2)
        self.register_buffer("frequencies", max_positions**-exponents, persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class SelfAttention(nn.Module):
    """Every pixel looks at every other: x (B, C, H, W) plus what it gathered, through `num_heads` heads."""

    def __init__(self, channels: int, num_heads: int = 1):
        super().__init__()
        self.num_heads = num_heads
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.num_heads, C // self.num_heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, pixels, C / heads)
        gathered = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(gathered.transpose(-1, -2).reshape(B, C, H, W))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, told the noise level in between, plus a shortcut: (B, in, H, W) -> (B, out, H, W).

    `emb` (B, `emb_channels`) scales and shifts the second normalisation. The last convolution starts at zero.
    """

    def __init__(
        self, in_channels: int, out_channels: int, emb_channels: int, dropout: float = 0.0, attention: bool = False
    ):
        super().__init__()
        self.norm0 = GroupNorm(in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.affine = nn.Linear(emb_channels, 2 * out_channels)
        self.norm1 = GroupNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.attention = SelfAttention(out_channels) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        return self.attention(self.skip(x) + self.conv1(self.dropout(h)))


class FourierEmbedding(PositionalEmbedding):
    """A `PositionalEmbedding` at N(0, `scale`^2) turns a unit, drawn once, saved with the weights and not trained."""

    def __init__(self, num_channels: int, scale: float = 16):
        nn.Module.__init__(self)
        self.register_buffer("frequencies", 2 * math.pi * scale * torch.randn(num_channels // 2))


class LabelDropout(nn.Dropout):
    """Class labels (B, label_dim) as they are; in training all zeros, no class, with probability `p` for each image."""

    def forward(self, class_labels: Tensor) -> Tensor:
        return class_labels * (super().forward(torch.ones_like(class_labels[:, :1])) > 0)


class Resample(nn.Module):
    """Change the resolution by `factor`, 2 or 1/2, with a filter: (B, C, H, W) -> (B, C, H * factor, W * factor).

    `taps`, its weights along either direction: [1, 1] repeats pixels, or takes means of 2x2; [1, 3, 3, 1] is smoother.
    `factor` 1 filters only, to (B, C, H + 1, W + 1), for a 3x3 convolution of stride 2 without padding.
    """

    def __init__(self, taps: Sequence[float], factor: float):
        super().__init__()
        row = torch.tensor(taps, dtype=torch.float32)
        row = row / row.sum() * max(factor, 1)  # going up, a new pixel meets every second tap only
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)
        self.up, self.stride = factor > 1, 1 if factor == 1 else 2
        self.padding = len(taps) // 2 - (factor != 1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.expand(x.shape[1], -1, -1, -1)
        conv = F.conv_transpose2d if self.up else F.conv2d
        return conv(x, kernel, stride=self.stride, padding=self.padding, groups=x.shape[1])


@dataclass(frozen=True)
class Style:
    """What each of the paper's U-Nets has of its own."""

    embedding: type[nn.Module] = PositionalEmbedding
    channel_mult_noise: int = 1  # the embedding of c_noise is this many times model_channels wide
    labels_after_mlp: bool = False  # where the class joins in
    residual_encoder: bool = False  # whether every level of the encoder sees the image once more
    resample_filter: tuple[int, ...] = (1, 1)
    resample_proj: bool = False  # whether a resampling block has a 1x1 convolution on its shortcut in any case
    adaptive_scale: bool = True  # whether `emb` scales and shifts the second normalisation, or is added before it
    skip_scale: float = 1.0  # by which each sum of two branches is multiplied
    head_channels: int = 0  # channels of a head of attention, where that divides them; 0 for a single head
    attend_rarely: bool = False  # whether in the decoder only a level's last block attends


class UNetBlock(ResidualBlock):
    """A `ResidualBlock` in the `style` of the paper's, which may `resample`: (B, in, H, W) -> (B, out, H', W')."""

    def __init__(
        self, in_channels: int, out_channels: int, emb_channels: int, dropout: float = 0.0, attention: bool = False,
        resample: nn.Module | None = None, style: Style = Style(),
    ):  # fmt: skip
        super().__init__(in_channels, out_channels, emb_channels, dropout)
        self.style, self.resample, self.attends = style, resample or nn.Identity(), attention
        if not style.adaptive_scale:
            self.affine = nn.Linear(emb_channels, out_channels)
        if resample and style.resample_proj:
            self.skip = nn.Conv2d(in_channels, out_channels, 1)
        if attention:
            head = style.head_channels or out_channels
            self.attention = SelfAttention(out_channels, out_channels // head if out_channels % head == 0 else 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(self.resample(F.silu(self.norm0(x))))
        if self.style.adaptive_scale:
            scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h + self.affine(emb)[:, :, None, None])
        h = self.conv1(self.dropout(F.silu(h)))
        x = (self.skip(self.resample(x)) + h) * self.style.skip_scale
        return self.attention(x) * self.style.skip_scale if self.attends else x


def check_widths(model_channels: int, channel_mult: Sequence[int], num_blocks: int) -> None:
    """Refuse networks without a level or a block, and widths that can't be embedded."""
    check_count("len(channel_mult)", len(channel_mult))
    check_count("num_blocks", num_blocks)
    if model_channels % 4:
        raise ValueError(f"model_channels is {model_channels}; it must be a multiple of 4.")


def level_resolutions(
    img_resolution: int, channel_mult: Sequence[int], attn_resolutions: Sequence[int], patch_size: int = 1
) -> list[int]:
    """The resolution of each level of a U-Net, the highest first, all whole numbers, some of which may attend."""
    levels = len(channel_mult)
    if img_resolution % (factor := patch_size * 2 ** (levels - 1)):
        wanted = f"{levels} levels need a multiple of {factor}. Pad the images, or take fewer levels in channel_mult"
        raise ValueError(f"img_resolution is {img_resolution}; {wanted}.")
    resolutions = [img_resolution // patch_size // 2**level for level in range(levels)]
    if unknown := sorted(set(attn_resolutions) - set(resolutions)):
        raise ValueError(f"attn_resolutions contains {unknown[0]}; the resolutions of this network are {resolutions}.")
    return resolutions
