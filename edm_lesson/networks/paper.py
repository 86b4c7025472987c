"""The three U-Nets of the paper: DDPM++, NCSN++ and ADM (Table 1, "network").

They share a skeleton, `PaperUNet`, and the block `layers.UNetBlock`; each class below them says what is its own.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from edm_lesson.checks import check_number
from edm_lesson.networks.layers import (
    FourierEmbedding,
    GroupNorm,
    PositionalEmbedding,
    Resample,
    UNetBlock,
    check_unet,
    level_resolutions,
    zero_init,
)


class PaperUNet(nn.Module):
    """What the three U-Nets F(x; c_noise) have in common; build a `DDPMpp`, an `NCSNpp` or an `ADM`.

    Parameters
    ----------
    img_resolution, img_channels : size (32, or any that 2^(levels - 1) divides) and channels of the images.
    label_dim, augment_dim : width of class labels and augmentation labels; 0 for none.
    model_channels, channel_mult : level l has `model_channels` * `channel_mult[l]` channels and half the
        resolution of level l - 1.
    num_blocks : residual blocks a level in the encoder; the decoder has one more.
    attn_resolutions : resolutions at which blocks end with self-attention; the bottleneck's first block always does.
    dropout : probability, inside the residual blocks.
    label_dropout : probability that, in training, the network is not told an image's class.

    Raises `ValueError` for a size that the levels don't divide, an attention resolution that doesn't occur, counts that
    are not whole, `model_channels` that 4 does not divide, and probabilities outside [0, 1].
    """

    embedding_type = PositionalEmbedding
    channel_mult_noise = 1  # the embedding of c_noise is this many times model_channels wide
    labels_after_mlp = False  # where the class joins in
    residual_encoder = False  # whether every level of the encoder sees the image once more
    resample_filter = (1, 1)
    attend_rarely = False  # whether in the decoder only a level's last block attends
    adaptive_scale, skip_scale, resample_proj = True, 1.0, False  # see UNetBlock

    def __init__(
        self,
        img_resolution=32,
        img_channels=1,
        label_dim=0,
        augment_dim=0,
        model_channels=128,
        channel_mult=(2, 2, 2),
        num_blocks=4,
        attn_resolutions=(16,),
        dropout=0.13,
        label_dropout=0.0,
    ):
        super().__init__()
        check_unet(
            img_resolution, img_channels, label_dim, augment_dim, model_channels, channel_mult, num_blocks, dropout
        )
        resolutions = level_resolutions(img_resolution, channel_mult, attn_resolutions)
        check_number("label_dropout", label_dropout, at_least=0, at_most=1)
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        self.factor = 2 ** (len(channel_mult) - 1)

        noise, emb = self.channel_mult_noise * model_channels, 4 * model_channels
        self.embedding = self.embedding_type(noise)
        self.augment_embedding = nn.Linear(augment_dim, noise, bias=False) if augment_dim else None
        joins, bias = (emb, False) if self.labels_after_mlp else (noise, True)
        self.label_embedding = nn.Linear(label_dim, joins, bias) if label_dim else None
        self.mlp = nn.Sequential(nn.Linear(noise, emb), nn.SiLU(), nn.Linear(emb, emb))

        def block(in_channels, out_channels, attention=False, factor=None):
            num_heads = self.num_heads(out_channels) if attention else 0
            resample = Resample(self.resample_filter, factor) if factor else None
            style = self.adaptive_scale, self.skip_scale, self.resample_proj
            return UNetBlock(in_channels, out_channels, emb, dropout, num_heads, resample, *style)

        levels = [(model_channels * mult, size) for mult, size in zip(channel_mult, resolutions, strict=True)]
        self.conv_in = nn.Conv2d(img_channels, model_channels, 3, padding=1)
        self.encoder, self.downs, self.residuals = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        seen, width, skips = img_channels, model_channels, [model_channels]
        for depth, (out, resolution) in enumerate(levels):
            if depth:
                self.downs.append(block(width, width, factor=0.5))
                skips.append(width)
            if depth and self.residual_encoder:
                smooth, halve = Resample(self.resample_filter, factor=1), nn.Conv2d(seen, width, 3, stride=2)
                self.residuals.append(nn.Sequential(smooth, halve))
                seen = width
            level = nn.ModuleList()
            for _ in range(num_blocks):
                level.append(block(width, out, resolution in attn_resolutions))
                width = out
                skips.append(out)
            self.encoder.append(level)
        self.bottleneck = nn.ModuleList([block(width, width, attention=True), block(width, width)])
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        for depth, (out, resolution) in enumerate(reversed(levels)):
            if depth:
                self.ups.append(block(width, width, factor=2))
            level = nn.ModuleList()
            for number in range(num_blocks + 1):
                attention = resolution in attn_resolutions and (number == num_blocks or not self.attend_rarely)
                level.append(block(width + skips.pop(), out, attention))
                width = out
            self.decoder.append(level)
        self.norm_out = GroupNorm(width)
        self.conv_out = zero_init(nn.Conv2d(width, img_channels, 3, padding=1))
        self.init_weights()

    def init_weights(self):
        """Draw the weights that don't start at zero; as they stand, they are PyTorch's own (Kaiming uniform)."""

    def num_heads(self, channels):
        """How many heads `channels` are shared out to where a block attends."""
        return 1

    def embed(self, c_noise, class_labels=None, augment_labels=None):
        """What every block is told: noise level, class and augmentation in one vector (B, 4 * model_channels)."""
        emb = self.embedding(c_noise)
        if self.augment_embedding is not None and augment_labels is not None:
            emb = emb + self.augment_embedding(augment_labels)
        if self.label_embedding is None:
            return F.silu(self.mlp(emb))
        classes = self.label_embedding(self.told(class_labels, emb))
        return F.silu(self.mlp(emb) + classes if self.labels_after_mlp else self.mlp(emb + classes))

    def told(self, class_labels, emb):
        """`class_labels` (B, label_dim) as the network is told them: zeros for None, and for some in training.

        They are multiplied by √label_dim, which gives a one-hot label the mean square 1.
        """
        if class_labels is None:
            return emb.new_zeros(len(emb), self.label_dim)
        if self.training and self.label_dropout:
            class_labels = class_labels * (torch.rand(len(emb), 1, device=emb.device) >= self.label_dropout)
        return class_labels * math.sqrt(self.label_dim)

    def forward(self, x, c_noise, class_labels=None, augment_labels=None):
        """F: `x` (B, C, H, W), `c_noise` (B,), one-hot `class_labels`, `augment_labels` -> (B, C, H, W)."""
        if x.shape[-2] % self.factor or x.shape[-1] % self.factor:
            raise ValueError(f"x is {tuple(x.shape)}; height and width must be multiples of {self.factor}.")
        emb = self.embed(c_noise, class_labels, augment_labels)
        seen, x = x, self.conv_in(x)
        skips = [x]
        for depth, level in enumerate(self.encoder):
            if depth:
                x = self.downs[depth - 1](x, emb)
                if self.residual_encoder:
                    x = seen = (x + self.residuals[depth - 1](seen)) * self.skip_scale
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
        return self.conv_out(F.silu(self.norm_out(x)))


class DDPMpp(PaperUNet):
    """DDPM++, the network of the VP column and of EDM's own: 55.7 million parameters with the defaults.

    Every sum of two branches is multiplied by √½, so that variance stays where both have it. Parameters: `PaperUNet`.
    """

    attend_rarely = True
    adaptive_scale, skip_scale, resample_proj = False, math.sqrt(0.5), True

    def init_weights(self):
        """Xavier's uniform weights, and no biases."""
        for name, module in self.named_modules():
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

    embedding_type = FourierEmbedding
    channel_mult_noise = 2
    residual_encoder = True
    resample_filter = (1, 3, 3, 1)


class ADM(PaperUNet):
    """ADM, the network of the iDDPM column and of ImageNet-64: 279.6 million parameters with the defaults.

    Blocks as in the lesson U-Net, four levels, and attention in every block at `attn_resolutions`, one head for each 64
    channels (a single one where 64 does not divide them). Parameters: `PaperUNet`, with other defaults, and

    learn_sigma : whether F has 2 * `img_channels` channels: the answer, then as many for learned variances.
    """

    labels_after_mlp = True

    def __init__(
        self,
        img_resolution=32,
        img_channels=1,
        label_dim=0,
        augment_dim=0,
        model_channels=192,
        channel_mult=(1, 2, 3, 4),
        num_blocks=3,
        attn_resolutions=(32, 16, 8),
        dropout=0.1,
        label_dropout=0.0,
        learn_sigma=False,
    ):
        super().__init__(
            img_resolution,
            img_channels,
            label_dim,
            augment_dim,
            model_channels,
            channel_mult,
            num_blocks,
            attn_resolutions,
            dropout,
            label_dropout,
        )
        if learn_sigma:
            self.conv_out = zero_init(nn.Conv2d(self.conv_out.in_channels, 2 * img_channels, 3, padding=1))

    def num_heads(self, channels):
        """How many heads `channels` are shared out to where a block attends."""
        return channels // 64 if channels % 64 == 0 else 1
