"""Pictures: pure functions from tensors to figures, in one style.

Every function closes the figure that it returns, so that a notebook shows it once. Images are
(B, C, H, W) in [-1, 1]; what lies outside is clipped.
"""

from contextlib import contextmanager

import matplotlib.pyplot as plt
import torch
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 11,
    "axes.titlesize": 11,
    "figure.dpi": 100,
}
# Wong's palette, told apart by colour-blind readers; markers and dashes tell lines apart without colour.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
MARKERS = ["o", "s", "^", "D", "v", "P"]


@contextmanager
def figure(rows=1, columns=1, size=None, **subplots):
    """A figure and its axes (always a 2-D array) in the course's style; closed on leaving."""
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **subplots)
        try:
            yield fig, axes
        finally:
            plt.close(fig)


def show_image(axis, image, title=""):
    """Draw one image (C, H, W) in [-1, 1] on `axis`, without ticks."""
    shown = ((image.detach().float().cpu().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).expand(-1, -1, 3)
    axis.imshow(shown, interpolation="nearest")
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color("0.8")


def image_grid(images, columns=8, title="", size=1.0):
    """Images (B, C, H, W) side by side in rows of `columns`, each `size` inches wide."""
    columns = min(columns, len(images))
    grid = make_grid(images.detach().float().cpu().clamp(-1, 1), nrow=columns, padding=1, pad_value=0.0)
    rows = -(-len(images) // columns)
    with figure(size=(columns * size, rows * size + (0.35 if title else 0))) as (fig, axes):
        show_image(axes[0, 0], grid, title)
        return fig


def save_grid(pixels, path, columns=8, scale=3):
    """Write uint8 images (N, C, H, W) to the PNG `path`, in rows of `columns`, each pixel `scale` pixels wide."""
    grid = make_grid(pixels, nrow=columns, padding=1, pad_value=0)
    to_pil_image(grid.repeat_interleave(scale, 1).repeat_interleave(scale, 2)).save(path)


def strip(frames, labels, size=1.1):
    """A film strip: row b, column k is `frames[k][b]`, under the heading `labels[k]`. Each frame is (B, C, H, W)."""
    rows, columns = len(frames[0]), len(frames)
    with figure(rows, columns, (columns * size, rows * size + 0.3)) as (fig, axes):
        for k, (frame, label) in enumerate(zip(frames, labels, strict=True)):
            for b, image in enumerate(frame):
                show_image(axes[b, k], image, label if b == 0 else "")
        return fig


def panels(images, titles, size=2.2):
    """A row of single images (C, H, W), each under its title."""
    with figure(1, len(images), (len(images) * size, size + 0.4)) as (fig, axes):
        for axis, image, title in zip(axes[0], images, titles, strict=True):
            show_image(axis, image, title)
        return fig


def steps(schedules):
    """Where the steps fall: for each of {name: levels} a row of marks on a logarithmic axis, without the final 0."""
    with figure(size=(8, 0.8 + 0.45 * len(schedules))) as (fig, axes):
        axis = axes[0, 0]
        for row, (levels, colour, marker) in enumerate(zip(schedules.values(), COLOURS * 2, MARKERS * 2, strict=False)):
            levels = torch.as_tensor(levels)
            axis.plot(
                levels[levels > 0],
                torch.full_like(levels[levels > 0], row),
                marker,
                color=colour,
                markersize=6,
                alpha=0.8,
            )
        axis.set_xscale("log")
        axis.invert_xaxis()
        axis.set_yticks(range(len(schedules)), schedules)
        axis.set_ylim(len(schedules) - 0.5, -0.5)
        axis.set_xlabel("noise level σ (steps run from left to right)")
        return fig


def curves(lines, xlabel, ylabel, logx=False, logy=False, size=(7, 3.2)):
    """Lines {name: (x, y)} in one picture, told apart by colour and marker."""
    with figure(size=size) as (fig, axes):
        axis = axes[0, 0]
        for (name, (x, y)), colour, marker in zip(lines.items(), COLOURS, MARKERS, strict=False):
            axis.plot(x, y, color=colour, marker=marker, markersize=4, markevery=max(1, len(x) // 12), label=name)
        if logx:
            axis.set_xscale("log")
        if logy:
            axis.set_yscale("log")
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        if len(lines) > 1:
            axis.legend(frameon=False)
        return fig


def denoising(noisy, denoised, score, sigma, size=2.4):
    """One image (C, H, W) noisy, denoised, and the score there: grey is 0, white says brighter, black darker."""
    scaled = score / score.abs().amax().clamp(min=1e-12)
    return panels(
        [noisy / max(1.0, sigma), denoised, scaled],
        [f"noisy, σ = {sigma:.3g}", "denoised D(x; σ)", "direction of the score"],
        size,
    )
