"""The lesson U-Net: the smallest network F that makes good digits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edm_lesson.checks import checked
from edm_lesson.networks.layers import (
    GroupNorm,
    LabelDropout,
    PositionalEmbedding,
    ResidualBlock,
    check_widths,
    level_resolutions,
    zero_init,
)


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

    @checked(check_widths)
    def __init__(
        self, img_resolution: int = 28, img_channels: int = 1, label_dim: int = 0, augment_dim: int = 0,
        model_channels: int = 32, channel_mult: Sequence[int] = (1, 2, 2), num_blocks: int = 2,
        attn_resolutions: Sequence[int] = (), patch_size: int = 1, dropout: float = 0.0, label_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.label_dim, self.augment_dim, self.patch_size = label_dim, augment_dim, patch_size
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

    def embed(
        self, c_noise: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """What every block is told: noise level, class and augmentation in one vector (B, 4 * model_channels)."""
        emb = self.embedding(c_noise)
        if class_labels is not None:
            emb = emb + self.label_embedding(self.label_dropout(class_labels))  # type: ignore[misc]  # likewise
        if augment_labels is not None:
            emb = emb + self.augment_embedding(augment_labels)  # type: ignore[misc]  # None has no room: it fails
        return self.mlp(emb)

    def forward(
        self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """F: `x` (B, C, H, W), `c_noise` (B,), one-hot `class_labels`, `augment_labels` -> (B, C, H, W)."""
        emb = self.embed(c_noise, class_labels, augment_labels)
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
