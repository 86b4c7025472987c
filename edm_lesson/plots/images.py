"""Pictures of images: grids, strips, rows, and what a denoiser or an attention map makes of one."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from torch import Tensor

from edm_lesson.plots import style
from edm_lesson.plots.alt_text import rows_of_images


@style.picture
def image_grid(images: Tensor, columns: int = 8, title: str = "", size: float = 1.0) -> style.Figure:
    """Images (B, C, H, W) side by side in rows of `columns`, each `size` inches wide."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    fig, axes = style.figure(size=(columns * size, rows * size + (0.35 if title else 0)))
    style.show_images(axes[0, 0], images, columns, title)
    return fig


@style.picture
def strip(
    frames: Sequence[Tensor], labels: Sequence[str], size: float = 1.1, row_labels: Sequence[str] = ()
) -> style.Figure:
    """A film strip: row b, column k is `frames[k][b]`, under the heading `labels[k]`. Each frame is (B, C, H, W).

    `row_labels`, if given, stand to the left of the rows. Images may differ in size: each fills its place.
    """
    rows, columns, pitch, edges = len(frames[0]), len(frames), 1.08, []
    fig, axes = style.figure(size=(columns * size + (1.1 if row_labels else 0), rows * size + 0.3))
    axis = axes[0, 0]  # one for all images: with axes for each, a style.picture takes several times as long
    for k, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        axis.annotate(label, (k * pitch + 0.5, 0), (0, 5), textcoords="offset points", ha="center", va="bottom")
        for b, image in enumerate(frame):
            height, width = (length / max(image.shape[-2:]) for length in image.shape[-2:])
            left, top = k * pitch + (1 - width) / 2, b * pitch + (1 - height) / 2
            extent = (left, left + width, top + height, top)
            axis.imshow(style.to_colors(image), interpolation="nearest", extent=extent)
            edges.append(Rectangle((left, top), width, height))
    axis.add_collection(PatchCollection(edges, facecolor="none", edgecolor="0.8", clip_on=False))
    axis.set(xlim=(0, columns * pitch - 0.08), ylim=(rows * pitch - 0.08, 0))
    style.without_ticks(axis)
    axis.spines[:].set_visible(False)
    axis.images[0].set_label(rows_of_images(rows, columns, labels, row_labels))
    for b, label in enumerate(row_labels):
        axis.annotate(label, (0, b * pitch + 0.5), (-5, 0), textcoords="offset points", ha="right", va="center")
    return fig


@style.picture
def panels(images: Sequence[Tensor], titles: Sequence[str], size: float = 2.2, heading: str = "") -> style.Figure:
    """A row of single images (C, H, W), each under its title; `heading` stands above all of them."""
    fig, axes = style.figure(1, len(images), (len(images) * size, size + (0.75 if heading else 0.4)))
    for axis, image, title in zip(axes[0], images, titles, strict=True):
        style.show_image(axis, image, title)
    if heading:
        fig.suptitle(heading, fontsize=11)
    return fig


def denoising(noisy: Tensor, denoised: Tensor, score: Tensor, sigma: float) -> style.Figure:
    """One image (C, H, W) noisy, denoised, and the score there: grey is 0, white says brighter, black darker."""
    images = [noisy / max(1.0, sigma), denoised, score / score.abs().amax().clamp(min=1e-12)]
    return panels(images, [f"noisy, σ = {sigma:.3g}", "denoised D(x; σ)", "direction of the score"], 2.4)


@style.picture
def pixel_values(
    batches: Sequence[Tensor], titles: Sequence[str], limit: float = 3.0, size: float = 2.2
) -> style.Figure:
    """The first image of each batch (B, C, H, W), grey where it is 0, black and white from -`limit` and `limit` on;
    below it, how often each value occurs in the batch."""
    fig, axes = style.figure(2, len(batches), (len(batches) * size, 1.9 * size), height_ratios=[1.7, 1])
    for (above, below), batch, title in zip(axes.T, batches, titles, strict=True):
        style.show_image(above, batch[0] / limit, title)
        shares = np.histogram(batch.clamp(-limit, limit), 37, (-limit, limit), density=True)
        below.stairs(*shares, fill=True, color="0.35")
        below.set(xlim=(-limit, limit), yticks=[], xlabel="pixel value")
    axes[1, 0].set_ylabel("how often")
    return fig


@style.picture
def attention(image: Tensor, clean: Tensor, weights: Tensor, cell: style.Pair, title: str = "") -> style.Figure:
    """Where one cell of a network's grid looks: `image` (1, H, W) with that cell, and `weights` (h, w) as an image.

    Brighter is more weight, to the largest; the white lines are the outline of the `clean` image (1, H, W).
    """
    (row, column), (h, w), (H, W) = cell, weights.shape, image.shape[-2:]
    corner = (column * W / w - 0.5, row * H / h - 0.5)
    fig, axes = style.figure(1, 2, (5.4, 3.1))
    for axis, name in zip(axes[0], ("what the network is given", "where the cell looks"), strict=True):
        style.show_image(axis, image, name)
        axis.add_patch(Rectangle(corner, W / w, H / h, fill=False, edgecolor=style.COLORS[1], linewidth=2.5, zorder=5))
    extent = (-0.5, W - 0.5, H - 0.5, -0.5)
    axes[0, 1].imshow(weights.numpy(), cmap="viridis", vmin=0, extent=extent, interpolation="nearest", zorder=2)
    axes[0, 1].contour(clean[0], levels=[0.0], colors="white", linewidths=1.5, zorder=3)
    fig.suptitle(title, fontsize=11)
    return fig


@style.picture
def maps(
    values: Sequence[Tensor], titles: Sequence[str], mark: style.Pair | None = None, size: float = 2.2
) -> style.Figure:
    """Matrices (H, W) from 0 up as a row of images, each brightest at its largest entry; `mark` is a pixel."""
    fig, axes = style.figure(1, len(values), (len(values) * size, size + 0.4))
    for axis, value, title in zip(axes[0], values, titles, strict=True):
        axis.imshow((value / value.max()).numpy(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        if mark is not None:
            axis.plot(mark[1], mark[0], "+", color="white", markersize=9)
        style.without_ticks(axis, title)
    return fig


@style.picture
def transformed(before: Tensor, after: Tensor, labels: Mapping[str, float], limit: float = 2.0) -> style.Figure:
    """An image (C, H, W) before and after something was done to it, and the {name: number} that say what.

    The numbers are bars on an axis from -`limit` to `limit`.
    """
    fig, axes = style.figure(1, 3, (8.6, 3.0), width_ratios=[1, 1, 1.1])
    style.show_image(axes[0, 0], before, "before")
    style.show_image(axes[0, 1], after, "after")
    axis = axes[0, 2]
    axis.barh(list(labels), list(labels.values()), color=style.COLORS[0])
    axis.axvline(0, color="0.3", linewidth=1)
    axis.invert_yaxis()
    axis.set(xlim=(-limit, limit), xlabel="label")
    return fig
