"""Pictures of images: grids, strips, rows, and what a denoiser or an attention map makes of one."""

import matplotlib.pyplot as plt
from matplotlib.collections import PatchCollection

from edm_lesson.plots.alt_text import rows_of_images
from edm_lesson.plots.style import COLORS, figure, show_image, show_images, to_colors


def image_grid(images, columns=8, title="", size=1.0):
    """Images (B, C, H, W) side by side in rows of `columns`, each `size` inches wide."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    with figure(size=(columns * size, rows * size + (0.35 if title else 0))) as (fig, axes):
        show_images(axes[0, 0], images, columns, title)
        return fig


def strip(frames, labels, size=1.1, row_labels=()):
    """A film strip: row b, column k is `frames[k][b]`, under the heading `labels[k]`. Each frame is (B, C, H, W).

    `row_labels`, if given, stand to the left of the rows. Images may differ in size: each fills its place.
    """
    rows, columns, pitch, edges = len(frames[0]), len(frames), 1.08, []
    with figure(size=(columns * size + (1.1 if row_labels else 0), rows * size + 0.3)) as (fig, axes):
        axis = axes[0, 0]  # one for all images: with axes for each, a picture takes several times as long
        for k, (frame, label) in enumerate(zip(frames, labels, strict=True)):
            axis.annotate(label, (k * pitch + 0.5, 0), (0, 5), textcoords="offset points", ha="center", va="bottom")
            for b, image in enumerate(frame):
                height, width = (length / max(image.shape[-2:]) for length in image.shape[-2:])
                left, top = k * pitch + (1 - width) / 2, b * pitch + (1 - height) / 2
                extent = (left, left + width, top + height, top)
                axis.imshow(to_colors(image), interpolation="nearest", extent=extent)
                edges.append(plt.Rectangle((left, top), width, height))
        axis.add_collection(PatchCollection(edges, facecolor="none", edgecolor="0.8", clip_on=False))
        axis.set(xlim=(0, columns * pitch - 0.08), ylim=(rows * pitch - 0.08, 0), xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.images[0].set_label(rows_of_images(rows, columns, labels, row_labels))
        for b, label in enumerate(row_labels):
            axis.annotate(label, (0, b * pitch + 0.5), (-5, 0), textcoords="offset points", ha="right", va="center")
        return fig


def panels(images, titles, size=2.2, heading=""):
    """A row of single images (C, H, W), each under its title; `heading` stands above all of them."""
    with figure(1, len(images), (len(images) * size, size + (0.75 if heading else 0.4))) as (fig, axes):
        for axis, image, title in zip(axes[0], images, titles, strict=True):
            show_image(axis, image, title)
        if heading:
            fig.suptitle(heading, fontsize=11)
        return fig


def denoising(noisy, denoised, score, sigma, size=2.4):
    """One image (C, H, W) noisy, denoised, and the score there: grey is 0, white says brighter, black darker."""
    scaled = score / score.abs().amax().clamp(min=1e-12)
    return panels(
        [noisy / max(1.0, sigma), denoised, scaled],
        [f"noisy, σ = {sigma:.3g}", "denoised D(x; σ)", "direction of the score"],
        size,
    )


def pixel_values(batches, titles, limit=3.0, size=2.2):
    """The first image of each batch (B, C, H, W), grey where it is 0, black and white from -`limit` and `limit` on;
    below it, how often each value occurs in the batch."""
    with figure(2, len(batches), (len(batches) * size, 1.9 * size), height_ratios=[1.7, 1]) as (fig, axes):
        for (above, below), batch, title in zip(axes.T, batches, titles, strict=True):
            show_image(above, batch[0] / limit, title)
            values = batch.flatten().clamp(-limit, limit)
            below.hist(values, bins=37, range=(-limit, limit), color="0.35", density=True)
            below.set_xlim(-limit, limit)
            below.set_yticks([])
            below.set_xlabel("pixel value")
        axes[1, 0].set_ylabel("how often")
        return fig


def attention(image, clean, weights, cell, title=""):
    """Where one cell of a network's grid looks: `image` (1, H, W) with that cell, and `weights` (h, w) as an image.

    Brighter is more weight, to the largest; the white lines are the outline of the `clean` image (1, H, W).
    """
    (row, column), (h, w), (H, W) = cell, weights.shape, image.shape[-2:]
    corner = (column * W / w - 0.5, row * H / h - 0.5)
    with figure(1, 2, (5.4, 3.1)) as (fig, axes):
        for axis, name in zip(axes[0], ("what the network is given", "where the cell looks"), strict=True):
            show_image(axis, image, name)
            box = plt.Rectangle(corner, W / w, H / h, fill=False, edgecolor=COLORS[1], linewidth=2.5, zorder=5)
            axis.add_patch(box)
        extent = (-0.5, W - 0.5, H - 0.5, -0.5)
        axes[0, 1].imshow(weights.numpy(), cmap="viridis", vmin=0, extent=extent, interpolation="nearest", zorder=2)
        axes[0, 1].contour(clean[0], levels=[0.0], colors="white", linewidths=1.5, zorder=3)
        fig.suptitle(title, fontsize=11)
        return fig


def maps(values, titles, mark=None, size=2.2):
    """Matrices (H, W) from 0 up as a row of images, each brightest at its largest entry; `mark` is a pixel."""
    with figure(1, len(values), (len(values) * size, size + 0.4)) as (fig, axes):
        for axis, value, title in zip(axes[0], values, titles, strict=True):
            axis.imshow((value / value.max()).numpy(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
            if mark is not None:
                axis.plot(mark[1], mark[0], "+", color="white", markersize=9)
            axis.set_title(title)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(False)
        return fig


def transformed(before, after, labels, limit=2.0):
    """An image (C, H, W) before and after something was done to it, and the {name: number} that say what.

    The numbers are bars on an axis from -`limit` to `limit`.
    """
    with figure(1, 3, (8.6, 3.0), width_ratios=[1, 1, 1.1]) as (fig, axes):
        show_image(axes[0, 0], before, "before")
        show_image(axes[0, 1], after, "after")
        axis = axes[0, 2]
        axis.barh(list(labels), list(labels.values()), color=COLORS[0])
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set_xlim(-limit, limit)
        axis.invert_yaxis()
        axis.set_xlabel("label")
        return fig
