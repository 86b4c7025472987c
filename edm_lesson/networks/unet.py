"""The lesson U-Net, the smallest network F that makes good digits, and the blocks that it is built of."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class LabelDropout(nn.Dropout):
    """Class labels (B, label_dim) as they are; in training all zeros, no class, with probability `p` for each image."""

    def forward(self, class_labels: Tensor) -> Tensor:
        return class_labels * (super().forward(torch.ones_like(class_labels[:, :1])) > 0)


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


class LessonUNet(nn.Module):
    """A U-Net F(x; c_noise) with one skip connection a block.

    Parameters
    ----------
    img_resolution, img_channels : size (28 or 32, or any that `patch_size` * 2^(levels - 1) divides) and channels
        of the images.
    label_dim, augment_dim : width of class labels and augmentation labels; 0 for none.
    model_channels, channel_mult : level l has `model_channels` * `channel_mult[l]` channels and half the
        resolution of level l - 1.
    num_blocks : residual blocks a level, in the encoder and in the decoder.
    attn_resolutions : resolutions at which all blocks end with self-attention; the bottleneck's block always does.
    patch_size : images are cut into patches of this size first, as in pixel-unshuffle; 1 leaves them whole.
    dropout : probability, inside the residual blocks.
    label_dropout : probability that, in training, the network is not told an image's class.
    """

    def __init__(
        self, img_resolution: int = 28, img_channels: int = 1, label_dim: int = 0, augment_dim: int = 0,
        model_channels: int = 32, channel_mult: Sequence[int] = (1, 2, 2), num_blocks: int = 2,
        attn_resolutions: Sequence[int] = (), patch_size: int = 1, dropout: float = 0.0, label_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.label_dim, self.patch_size = label_dim, patch_size
        resolutions = level_resolutions(img_resolution, channel_mult, attn_resolutions, patch_size)

        widths = [model_channels * mult for mult in channel_mult]
        emb_channels = 4 * model_channels
        self.embedding = PositionalEmbedding(model_channels)
        self.label_embedding = nn.Linear(label_dim, model_channels, bias=False) if label_dim else None
        self.label_dropout = LabelDropout(label_dropout)
        self.augment_embedding = nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.mlp = nn.Sequential(
            nn.Linear(model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels), nn.SiLU()
        )

        def block(in_channels, out_channels, attention):
            return ResidualBlock(in_channels, out_channels, emb_channels, dropout, attention)

        pixels = img_channels * patch_size**2
        self.conv_in = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList()
        skips, width = [], widths[0]
        for out, resolution in zip(widths, resolutions, strict=True):
            level = nn.ModuleList()
            for _ in range(num_blocks):
                level.append(block(width, out, resolution in attn_resolutions))
                width = out
                skips.append(out)
            self.encoder.append(level)
        self.bottleneck = block(width, width, attention=True)
        self.decoder = nn.ModuleList()
        for out, resolution in zip(reversed(widths), reversed(resolutions), strict=True):
            level = nn.ModuleList()
            for _ in range(num_blocks):
                level.append(block(width + skips.pop(), out, resolution in attn_resolutions))
                width = out
            self.decoder.append(level)
        self.norm_out = GroupNorm(width)
        self.conv_out = zero_init(nn.Conv2d(width, pixels, 3, padding=1))

    def forward(
        self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """F: `x` (B, C, H, W), `c_noise` (B,), one-hot `class_labels`, `augment_labels` -> (B, C, H, W)."""
        emb = self.embedding(c_noise)
        if class_labels is not None:
            emb = emb + self.label_embedding(self.label_dropout(class_labels))  # type: ignore[misc]  # fails where there is none
        if augment_labels is not None:
            emb = emb + self.augment_embedding(augment_labels)  # type: ignore[misc]
        emb = self.mlp(emb)
        x = self.conv_in(F.pixel_unshuffle(x, self.patch_size))
        skips = []
        for depth, level in enumerate(self.encoder):
            x = F.avg_pool2d(x, 2) if depth else x
            for block in level:
                x = block(x, emb)
                skips.append(x)
        x = self.bottleneck(x, emb)
        for depth, level in enumerate(self.decoder):
            x = F.interpolate(x, scale_factor=2) if depth else x
            for block in level:
                x = block(torch.cat([x, skips.pop()], dim=1), emb)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch_size)
