"""Pictures of images: in grids and rows, as points of a plane, and on their way through a network."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from torch import Tensor, stack
from torch.nn.functional import normalize

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
    images: Sequence[Tensor], titles: Sequence[str], size: float = 2.2, heading: str = "", box: Sequence[int] = ()
) -> style.Figure:
    """A row of images (C, H, W) or matrices (H, W), each under its title; `heading` stands above all of them.

    Matrices are drawn from 0, dark, to their largest entry. `box`, (row, column, height, width), frames pixels on each.
    """
    top = 0.6 if heading else 0.35
    fig, _ = style.figure((len(images) * size, size + top), 1, len(images), (0.05, 0.05, 0.05, top))
    for axis, image, title in zip(fig.axes, images, titles, strict=True):
        style.show_image(axis, image, title)
        if box:
            row, column, height, width = box
            frame = {"fill": False, "edgecolor": style.RED, "linewidth": 2}
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), width, height, **frame))
    if heading:
        fig.suptitle(heading)
    return fig


@style.picture
def histograms(batches: Sequence[Tensor], titles: Sequence[str], limit: float = 3.0) -> style.Figure:
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
def transformed(before: Tensor, after: Tensor, labels: Mapping[str, float], limit: float = 2.0) -> style.Figure:
    """An image (C, H, W) before and after something was done to it; as bars, the {name: number} that say what."""
    fig, (left, middle, right) = style.figure((8.6, 3.0), 1, 3, width_ratios=[1, 1, 1.1])
    style.show_image(left, before, "before")
    style.show_image(middle, after, "after")
    right.barh(list(labels), list(labels.values()), color=style.BLUE, label=list(labels))
    right.axvline(0, color="0.3", linewidth=1)
    right.invert_yaxis()
    right.set(xlim=(-limit, limit), xlabel="label")
    return fig


@style.picture
def field(
    places: Tensor, arrows: Tensor, likelihood: Tensor, points: Tensor, weights: Tensor, x: Tensor, answer: Tensor,
    title: str = ""
) -> style.Figure:  # fmt: skip
    """Images of two pixels as points of a plane: which way arrows lead, and what a denoiser makes of one image.

    `places` (K, 2), `arrows` (K, 2), drawn at equal length; `likelihood` (n, n) over [-2, 2] x [-2, 2], shaded;
    `points` (N, 2), drawn larger the larger their `weights` (N,); `x` (2,) and the `answer` (2,) to it.
    """
    fig, axis = style.figure((5.2, 5.5))
    shade = {"cmap": "Greys", "vmax": 2 * likelihood.max(), "extent": (-2, 2, -2, 2), "origin": "lower"}
    axis.imshow(likelihood.T.numpy(), vmin=0, interpolation="auto", **shade)
    axis.quiver(*places.T, *normalize(arrows).T, scale=24, width=0.0035, color="0.35", pivot="mid")
    axis.scatter(*points.T, s=25 + 400 * weights, color=style.BLUE, edgecolor="white", label="clean images y", zorder=3)
    axis.plot(*stack([x, answer]).T, "--", color=style.RED, zorder=4)
    look = {"color": style.RED, "markeredgecolor": "white", "zorder": 5}
    axis.plot(*x[:, None], "X", markersize=11, label="x", **look)
    axis.plot(*answer[:, None], "*", markersize=15, label="D(x; σ)", **look)
    axis.set(xlim=(-2, 2), ylim=(-2, 2), title=title, xlabel="left pixel (−1 black, 1 white)", ylabel="right pixel")
    axis.grid(False)
    style.legend_below(fig, axis)
    fig.legends[0].legend_handles[0].set_sizes([60])
    return fig


@style.picture
def clouds(groups: Mapping[str, Tensor], limit: float = 1.5, size: float = 2.7) -> style.Figure:
    """Images of two pixels as points of a plane: {title: points (N, 2)} side by side, from -`limit` to `limit`."""
    fig, _ = style.figure((len(groups) * size, size + 0.5), 1, len(groups), sharex=True, sharey=True)
    for axis, (title, points) in zip(fig.axes, groups.items(), strict=True):
        axis.plot(*points.T, ".", color="black", markersize=2, alpha=0.4)
        axis.set(title=title, xlabel="left pixel", xlim=(-limit, limit), xticks=[-1, 0, 1], aspect="equal")
    fig.axes[0].set(ylabel="right pixel", ylim=(-limit, limit), yticks=[-1, 0, 1])
    return fig


@style.picture
def shapes(stages: Mapping[str, tuple[int, int, int]], skips: Sequence[tuple[str, str]] = ()) -> style.Figure:
    """Tensors on their way through a network, {name: (C, H, W)} from left to right; arrows join the pairs in `skips`.

    Each is a box as high as its resolution and wider with more channels; lower resolutions stand lower.
    """
    channels, heights, _ = zip(*stages.values(), strict=True)
    low, top = min(heights), max(heights)
    fig, axis = style.figure((0.85 * len(stages) + 0.6, 4.6))
    centered, roofs = {"ha": "center", "fontsize": 9}, {}
    for place, (name, (C, H, W)) in enumerate(stages.items()):
        roof = 2 * (H - top)
        roofs[name] = place, roof + 0.1
        axis.bar(place, H, 0.2 + 0.6 * C / max(channels), bottom=roof - H, color="0.85", edgecolor="0.3")
        told, turned = (f"{C} × {H} × {W}", 90) if H / top > 0.4 else (f"{C} ×\n{H} × {W}", 0)  # upright if it fits
        axis.text(place, roof - H / 2, told, rotation=turned, va="center", **centered)
        axis.text(place, roof - H - 0.4, name.replace("coder.", "c\n", 1), va="top", **centered)
    for start, end in skips:
        bend = -0.6 / (roofs[end][0] - roofs[start][0]) ** 0.6
        arrow = {"arrowstyle": "->", "color": style.BLUE, "connectionstyle": f"arc3,rad={bend}"}
        axis.annotate("", roofs[end], roofs[start], arrowprops=arrow)
    axis.set(xlim=(-0.6, len(stages) - 0.4), ylim=(low - 2 * top - 3, top / 3 if skips else 1))
    axis.axis("off")
    return fig
