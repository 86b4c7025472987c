"""The three U-Nets of the paper, which share blocks and a skeleton: DDPM++, NCSN++ and ADM (Table 1, "network")."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edm_lesson.networks import unet


class FourierEmbedding(unet.PositionalEmbedding):
    """A `PositionalEmbedding` at N(0, `scale`^2) turns a unit, drawn once, saved with the weights and not trained."""

    def __init__(self, num_channels: int, scale: float = 16):
        nn.Module.__init__(self)
        self.register_buffer("frequencies", 2 * math.pi * scale * torch.randn(num_channels // 2))


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

    embedding: type[nn.Module] = unet.PositionalEmbedding
    channel_mult_noise: int = 1  # the embedding of c_noise is this many times model_channels wide
    labels_after_mlp: bool = False  # where the class joins in
    residual_encoder: bool = False  # whether every level of the encoder sees the image once more
    resample_filter: tuple[int, ...] = (1, 1)
    resample_proj: bool = False  # whether a resampling block has a 1x1 convolution on its shortcut in any case
    adaptive_scale: bool = True  # whether `emb` scales and shifts the second normalisation, or is added before it
    skip_scale: float = 1.0  # by which each sum of two branches is multiplied
    head_channels: int = 0  # channels of a head of attention, where that divides them; 0 for a single head
    attend_rarely: bool = False  # whether in the decoder only a level's last block attends


class UNetBlock(unet.ResidualBlock):
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
            self.attention = unet.SelfAttention(out_channels, out_channels // head if out_channels % head == 0 else 1)

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


class PaperUNet(nn.Module):
    """What the three U-Nets F(x; c_noise) have in common; build a `DDPMpp`, an `NCSNpp` or an `ADM`.

    Parameters, of which the defaults differ, are those of `LessonUNet`; but the decoder has one block more at every
    level, and the bottleneck a second one, which doesn't attend.
    """

    style = Style()

    def __init__(
        self, img_resolution: int = 32, img_channels: int = 1, label_dim: int = 0, augment_dim: int = 0,
        model_channels: int = 128, channel_mult: Sequence[int] = (2, 2, 2), num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,), patch_size: int = 1, dropout: float = 0.13, label_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        resolutions = unet.level_resolutions(img_resolution, channel_mult, attn_resolutions, patch_size)
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.label_dim, self.patch_size = label_dim, patch_size

        style = self.style
        noise, emb = style.channel_mult_noise * model_channels, 4 * model_channels
        self.embedding = style.embedding(noise)
        self.augment_embedding = nn.Linear(augment_dim, noise, bias=False) if augment_dim else None
        joins, bias = (emb, False) if style.labels_after_mlp else (noise, True)
        self.label_embedding = nn.Linear(label_dim, joins, bias) if label_dim else None
        self.label_dropout = unet.LabelDropout(label_dropout)
        self.mlp = nn.Sequential(nn.Linear(noise, emb), nn.SiLU(), nn.Linear(emb, emb))

        def block(in_channels, out_channels, attention=False, factor=None):
            resample = Resample(style.resample_filter, factor) if factor else None
            return UNetBlock(in_channels, out_channels, emb, dropout, attention, resample, style)

        widths = [model_channels * mult for mult in channel_mult]
        levels = [(width, size in attn_resolutions) for width, size in zip(widths, resolutions, strict=True)]
        pixels = img_channels * patch_size**2
        self.conv_in = nn.Conv2d(pixels, model_channels, 3, padding=1)
        self.encoder, width = nn.ModuleList(), model_channels
        for out, attends in levels:
            self.encoder.append(nn.ModuleList(block(width if k == 0 else out, out, attends) for k in range(num_blocks)))
            width = out
        self.downs = nn.ModuleList(block(out, out, factor=0.5) for out in widths[:-1])
        self.residuals = nn.ModuleList(
            nn.Sequential(Resample(style.resample_filter, factor=1), nn.Conv2d(seen, out, 3, stride=2))
            for seen, out in pairwise([pixels, *widths[:-1]] if style.residual_encoder else [])
        )
        self.bottleneck = nn.ModuleList([block(width, width, attention=True), block(width, width)])
        skips = [model_channels, *(out for out in widths for _ in range(num_blocks + 1))][:-1]  # blocks and steps down
        self.decoder = nn.ModuleList()
        for out, attends in reversed(levels):
            level = nn.ModuleList()
            for number in range(num_blocks + 1):
                is_asked = number == num_blocks or not style.attend_rarely
                level.append(block(width + skips.pop(), out, attends and is_asked))
                width = out
            self.decoder.append(level)
        self.ups = nn.ModuleList(block(out, out, factor=2) for out in reversed(widths[1:]))
        self.norm_out = unet.GroupNorm(width)
        self.conv_out = unet.zero_init(nn.Conv2d(width, pixels, 3, padding=1))

    def forward(
        self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """F: `x` (B, C, H, W), `c_noise` (B,), one-hot `class_labels`, `augment_labels` -> (B, C, H, W)."""
        emb, after = self.embedding(c_noise), 0
        if augment_labels is not None:
            emb = emb + self.augment_embedding(augment_labels)  # type: ignore[misc]  # fails where there is none
        if self.label_embedding is not None:
            labels = x.new_zeros(len(x), self.label_dim) if class_labels is None else self.label_dropout(class_labels)
            classes = self.label_embedding(math.sqrt(self.label_dim) * labels)  # one-hot: of mean square 1
            emb, after = (emb, classes) if self.style.labels_after_mlp else (emb + classes, 0)
        emb = F.silu(self.mlp(emb) + after)
        seen = F.pixel_unshuffle(x, self.patch_size)
        x = self.conv_in(seen)
        skips = [x]
        for depth, level in enumerate(self.encoder):
            if depth:
                x = self.downs[depth - 1](x, emb)
                if self.style.residual_encoder:
                    x = seen = (x + self.residuals[depth - 1](seen)) * self.style.skip_scale
                skips.append(x)
            for block in level:
                x = block(x, emb)
                skips.append(x)
        for block in self.bottleneck:
            x = block(x, emb)
        for depth, level in enumerate(self.decoder):
            x = self.ups[depth - 1](x, emb) if depth else x
            for block in level:
                x = block(torch.cat([x, skips.pop()], dim=1), emb)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch_size)


class DDPMpp(PaperUNet):
    """DDPM++, the network of the VP column and of EDM's own: 55.7 million parameters with the defaults.

    Every sum of two branches is multiplied by √½, so that variance stays where both have it. Parameters: `PaperUNet`.
    """

    style = Style(adaptive_scale=False, skip_scale=math.sqrt(0.5), resample_proj=True, attend_rarely=True)

    def __init__(self, *sizes: Any, **settings: Any):
        super().__init__(*sizes, **settings)
        for name, module in self.named_modules():  # Xavier's uniform weights, and no biases
            if isinstance(module, nn.GroupNorm):
                module.eps = 1e-6  # at the bottom, √½ upon √½ brings the variance below the usual 1e-5
            elif isinstance(module, (nn.Conv2d, nn.Linear)) and not name.endswith(("conv1", "proj", "conv_out")):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class NCSNpp(DDPMpp):
    """NCSN++, the network of the VE column: 56.4 million parameters with the defaults.

    DDPM++ with random Fourier frequencies, a smoother filter between resolutions, and a residual encoder: each level
    adds to its features what a convolution makes of the level above, the topmost of the image. Parameters: `PaperUNet`.
    """

    style = replace(DDPMpp.style, embedding=FourierEmbedding, channel_mult_noise=2)
    style = replace(style, resample_filter=(1, 3, 3, 1), residual_encoder=True)


class ADM(PaperUNet):
    """ADM, the network of the iDDPM column and of ImageNet-64: 279.6 million parameters with the defaults.

    Blocks as in the lesson U-Net, four levels, and attention in every block at `attn_resolutions`, one head for each 64
    channels (a single one where 64 does not divide them). Parameters: `PaperUNet`, with other defaults.
    """

    style = Style(labels_after_mlp=True, head_channels=64)

    def __init__(self, *sizes: Any, **settings: Any):
        own = {"model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (32, 16, 8)}
        super().__init__(*sizes, **{**own, "dropout": 0.1, **settings})
