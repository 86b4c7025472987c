"""The three U-Nets of the paper, which share a skeleton: DDPM++, NCSN++ and ADM (Table 1, "network")."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edm_lesson.checks import checked
from edm_lesson.networks import layers


class PaperUNet(nn.Module):
    """What the three U-Nets F(x; c_noise) have in common; build a `DDPMpp`, an `NCSNpp` or an `ADM`.

    Parameters, of which the defaults differ, are those of `LessonUNet`; but the decoder has one block more at every
    level, and the bottleneck a second one, which doesn't attend.
    """

    style = layers.Style()

    @checked(layers.check_widths)
    def __init__(
        self, img_resolution: int = 32, img_channels: int = 1, label_dim: int = 0, augment_dim: int = 0,
        model_channels: int = 128, channel_mult: Sequence[int] = (2, 2, 2), num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,), patch_size: int = 1, dropout: float = 0.13, label_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        resolutions = layers.level_resolutions(img_resolution, channel_mult, attn_resolutions, patch_size)
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.label_dim, self.augment_dim, self.patch_size = label_dim, augment_dim, patch_size

        style = self.style
        noise, emb = style.channel_mult_noise * model_channels, 4 * model_channels
        self.embedding = style.embedding(noise)
        self.augment_embedding = nn.Linear(augment_dim, noise, bias=False) if augment_dim else None
        joins, bias = (emb, False) if style.labels_after_mlp else (noise, True)
        self.label_embedding = nn.Linear(label_dim, joins, bias) if label_dim else None
        self.label_dropout = layers.LabelDropout(label_dropout)
        self.mlp = nn.Sequential(nn.Linear(noise, emb), nn.SiLU(), nn.Linear(emb, emb))

        def block(in_channels, out_channels, attention=False, factor=None):
            resample = layers.Resample(style.resample_filter, factor) if factor else None
            return layers.UNetBlock(in_channels, out_channels, emb, dropout, attention, resample, style)

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
            nn.Sequential(layers.Resample(style.resample_filter, factor=1), nn.Conv2d(seen, out, 3, stride=2))
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
        self.norm_out = layers.GroupNorm(width)
        self.conv_out = layers.zero_init(nn.Conv2d(width, pixels, 3, padding=1))

    def embed(
        self, c_noise: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """What every block is told: noise level, class and augmentation in one vector (B, 4 * model_channels)."""
        emb = self.embedding(c_noise)
        if augment_labels is not None:
            emb = emb + self.augment_embedding(augment_labels)  # type: ignore[misc]  # None has no room: it fails
        if self.label_embedding is None:
            return F.silu(self.mlp(emb))
        if class_labels is None:
            class_labels = emb.new_zeros(len(emb), self.label_dim)
        scale = math.sqrt(self.label_dim)  # gives a one-hot label the mean square 1
        classes = self.label_embedding(scale * self.label_dropout(class_labels))
        return F.silu(self.mlp(emb) + classes if self.style.labels_after_mlp else self.mlp(emb + classes))

    def forward(
        self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """F: `x` (B, C, H, W), `c_noise` (B,), one-hot `class_labels`, `augment_labels` -> (B, C, H, W)."""
        emb = self.embed(c_noise, class_labels, augment_labels)
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

    style = layers.Style(adaptive_scale=False, skip_scale=math.sqrt(0.5), resample_proj=True, attend_rarely=True)

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

    style = replace(
        DDPMpp.style,
        embedding=layers.FourierEmbedding,
        channel_mult_noise=2,
        residual_encoder=True,
        resample_filter=(1, 3, 3, 1),
    )


class ADM(PaperUNet):
    """ADM, the network of the iDDPM column and of ImageNet-64: 279.6 million parameters with the defaults.

    Blocks as in the lesson U-Net, four levels, and attention in every block at `attn_resolutions`, one head for each 64
    channels (a single one where 64 does not divide them). Parameters: `PaperUNet`, with other defaults.
    """

    style = layers.Style(labels_after_mlp=True, head_channels=64)

    def __init__(self, *sizes: Any, **settings: Any):
        own = {"model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (32, 16, 8)}
        super().__init__(*sizes, **{**own, "dropout": 0.1, **settings})
