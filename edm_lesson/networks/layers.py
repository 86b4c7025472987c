"""The building blocks that the U-Nets share."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class GroupNorm(nn.GroupNorm):
    """GroupNorm with about four channels a group and at most 32 groups; in float32 also under autocast.

    Means and variances of half-precision numbers lose digits, and on a CPU they take three times as long.
    """

    def __init__(self, channels):
        super().__init__(math.gcd(channels, min(32, max(channels // 4, 1))), channels)

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def zero_init(layer):
    """Return `layer` with weights and bias at zero, so that it adds nothing before training."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class PositionalEmbedding(nn.Module):
    """Cosines and sines of c_noise (B,) at `num_channels` / 2 frequencies, from 1 to 1 / `max_positions`.

    Returns (B, `num_channels`).
    """

    def __init__(self, num_channels, max_positions=10000):
        super().__init__()
        exponents = torch.linspace(0, 1, num_channels // 2)
        self.register_buffer("frequencies", max_positions**-exponents, persistent=False)

    def forward(self, c_noise):
        angles = c_noise[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class SelfAttention(nn.Module):
    """Every pixel looks at every other: x (B, C, H, W) plus what it gathered, through `num_heads` heads."""

    def __init__(self, channels, num_heads=1):
        super().__init__()
        self.num_heads = num_heads
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.num_heads, C // self.num_heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, pixels, C / heads)
        gathered = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(gathered.transpose(-1, -2).reshape(B, C, H, W))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, told the noise level in between, plus a shortcut: (B, in, H, W) -> (B, out, H, W).

    `emb` (B, `emb_channels`) scales and shifts the second normalisation. The last convolution starts at zero.
    """

    def __init__(self, in_channels, out_channels, emb_channels, dropout=0.0, attention=False):
        super().__init__()
        self.norm0 = GroupNorm(in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.affine = nn.Linear(emb_channels, 2 * out_channels)
        self.norm1 = GroupNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.attention = SelfAttention(out_channels) if attention else nn.Identity()

    def forward(self, x, emb):
        h = self.conv0(F.silu(self.norm0(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        return self.attention(self.skip(x) + self.conv1(self.dropout(h)))
