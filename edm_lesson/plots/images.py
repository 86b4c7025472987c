"""Pictures of images: grids, strips, rows, and what a denoiser or an attention map makes of one."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from torch import Tensor

from edm_lesson.plots import style


@style.picture
def image_grid(images: Tensor, columns: int = 8, title: str = "", size: float = 1.0) -> style.Figure:
    """Images (B, C, H, W) side by side in rows of `columns`, each `size` inches wide."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    fig, axis = style.figure((columns * size, rows * size + (0.35 if title else 0)))
    style.show_images(axis, images, columns, title)
    return fig


@style.picture
def strip(
    frames: Sequence[Tensor], labels: Sequence[str], size: float = 1.1, row_labels: Sequence[str] = ()
) -> style.Figure:
    """A film strip: row b, column k is `frames[k][b]`, under the heading `labels[k]`. Each frame is (B, C, H, W).

    `row_labels`, if given, stand to the left of the rows. Images may differ in size: each fills its place.
    """
    rows, columns, pitch, edges = len(frames[0]), len(frames), 1.08, []
    fig, axis = style.figure((columns * size + (1.1 if row_labels else 0), rows * size + 0.3))
    for k, (frame, label) in enumerate(zip(frames, labels, strict=True)):  # axes for each take several times as long
        axis.annotate(label, (k * pitch + 0.5, 0), (0, 5), textcoords="offset points", ha="center", va="bottom")
        for b, image in enumerate(frame):
            height, width = (length / max(image.shape[-2:]) for length in image.shape[-2:])
            left, top = k * pitch + (1 - width) / 2, b * pitch + (1 - height) / 2
            axis.imshow(style.to_colors(image), extent=(left, left + width, top + height, top))
            edges.append(Rectangle((left, top), width, height))
    axis.add_collection(PatchCollection(edges, facecolor="none", edgecolor="0.8", clip_on=False))
    for b, label in enumerate(row_labels):
        axis.annotate(label, (0, b * pitch + 0.5), (-5, 0), textcoords="offset points", ha="right", va="center")
    axis.set(xlim=(0, columns * pitch - 0.08), ylim=(rows * pitch - 0.08, 0))
    axis.axis("off")
    told = f"{rows} rows of {columns} images" if rows > 1 else f"{columns} images"
    told += f": {'; '.join(labels)}" if any(labels) else ""
    told += f"; rows {', '.join(dict.fromkeys(row_labels))}" if row_labels else ""
    axis.images[0].set_label(told)
    return fig


@style.picture
def panels(
    images: Sequence[Tensor], titles: Sequence[str], size: float = 2.2, heading: str = "",
    mark: style.Pair | None = None
) -> style.Figure:  # fmt: skip
    """A row of images (C, H, W) or matrices (H, W), each under its title; `heading` stands above all of them.

    Matrices are drawn from 0, dark, to their largest entry. `mark` is a pixel, (row, column).
    """
    top = 0.6 if heading else 0.35
    fig, _ = style.figure((len(images) * size, size + top), 1, len(images), (0.05, 0.05, 0.05, top))
    for axis, image, title in zip(fig.axes, images, titles, strict=True):
        style.show_image(axis, image, title)
        if mark:
            axis.plot(*reversed(mark), "+", color="white", markersize=9)
    if heading:
        fig.suptitle(heading)
    return fig


@style.picture
def pixel_values(batches: Sequence[Tensor], titles: Sequence[str], limit: float = 3.0) -> style.Figure:
    """The first image of each batch (B, C, H, W), grey where it is 0, black and white from -`limit` and `limit` on;
    below it, how often each value occurs in the batch."""
    size = (2.2 * len(batches), 4.2)
    fig, axes = style.figure(size, 2, len(batches), (0.3, 0.05, 0.55, 0.5), height_ratios=[2, 1], squeeze=False)
    fig.subplots_adjust(hspace=0.1)
    for (above, below), batch, title in zip(axes.T, batches, titles, strict=True):
        style.show_image(above, batch[0] / limit, title)
        shares = np.histogram(batch.clamp(-limit, limit), 37, (-limit, limit), density=True)
        below.stairs(*shares, fill=True, color="0.35")
        below.set(xlim=(-limit, limit), yticks=[], xlabel="pixel value")
    axes[1, 0].set_ylabel("how often")
    return fig


@style.picture
def attention(image: Tensor, clean: Tensor, weights: Tensor, cell: style.Pair, title: str = "") -> style.Figure:
    """Where one `cell` of a network's grid looks: `image` (1, H, W) with that cell, and `weights` (h, w), brighter the
    larger, under the outline of the `clean` image (1, H, W)."""
    height, width = (pixels // cells for pixels, cells in zip(image.shape[-2:], weights.shape, strict=True))
    looks = weights.repeat_interleave(height, 0).repeat_interleave(width, 1)
    fig = panels([image, looks], ["what the network is given", "where the cell looks"], 2.6, title)
    for axis in fig.axes:
        corner = (cell[1] * width - 0.5, cell[0] * height - 0.5)
        axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=style.COLORS[1], linewidth=2.5, zorder=5))
    fig.axes[1].contour(clean[0], levels=[0.0], colors="white", linewidths=1.5)
    return fig


@style.picture
def transformed(before: Tensor, after: Tensor, labels: Mapping[str, float], limit: float = 2.0) -> style.Figure:
    """An image (C, H, W) before and after something was done to it; as bars, the {name: number} that say what."""
    fig, (left, middle, right) = style.figure((8.6, 3.0), 1, 3, width_ratios=[1, 1, 1.1])
    style.show_image(left, before, "before")
    style.show_image(middle, after, "after")
    right.barh(list(labels), list(labels.values()), color=style.COLORS[0], label=list(labels))
    right.axvline(0, color="0.3", linewidth=1)
    right.invert_yaxis()
    right.set(xlim=(-limit, limit), xlabel="label")
    return fig
