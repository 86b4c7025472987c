"""Pictures: pure functions from tensors to figures, in one style.

Every function closes the figure that it returns, so that a notebook shows it once. Images are
(B, C, H, W) in [-1, 1]; what lies outside is clipped.
"""

import math
from contextlib import contextmanager
from itertools import cycle
from statistics import fmean

import matplotlib.pyplot as plt
import torch
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


def strip(frames, labels, size=1.1, row_labels=None):
    """A film strip: row b, column k is `frames[k][b]`, under the heading `labels[k]`. Each frame is (B, C, H, W).

    `row_labels`, if given, stand to the left of the rows.
    """
    rows, columns = len(frames[0]), len(frames)
    with figure(rows, columns, (columns * size + (1.1 if row_labels else 0), rows * size + 0.3)) as (fig, axes):
        for k, (frame, label) in enumerate(zip(frames, labels, strict=True)):
            for b, image in enumerate(frame):
                show_image(axes[b, k], image, label if b == 0 else "")
        for axis, label in zip(axes[:, 0], row_labels or (), strict=False):
            axis.set_ylabel(label, rotation=0, ha="right", va="center")
        return fig


def panels(images, titles, size=2.2, heading=""):
    """A row of single images (C, H, W), each under its title; `heading` stands above all of them."""
    with figure(1, len(images), (len(images) * size, size + (0.75 if heading else 0.4))) as (fig, axes):
        for axis, image, title in zip(axes[0], images, titles, strict=True):
            show_image(axis, image, title)
        if heading:
            fig.suptitle(heading, fontsize=11)
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


def smooth(values, window=10):
    """The mean of each of `values` and those before it: a fifth of all so far, at most `window`; as many as `values`.

    The window grows, so that a steep start is not flattened.
    """
    return [fmean(values[end - min(window, 1 + end // 5) : end]) for end in range(1, len(values) + 1)]


def curves(lines, xlabel, ylabel, logx=False, logy=False, size=(7, 3.2), xticks=(), xlim=None, ylim=None):
    """Lines {name: (x, y)} in one picture, told apart by colour and marker; `xticks` are marked, if there are any.

    `xlim` and `ylim` hold the axes fixed, so that a slider moves the lines and not the axes.
    """
    with figure(size=size) as (fig, axes):
        axis = axes[0, 0]
        for (name, (x, y)), colour, marker in zip(lines.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
            axis.plot(x, y, color=colour, marker=marker, markersize=4, markevery=max(1, len(x) // 12), label=name)
        if logx:
            axis.set_xscale("log")
        if logy:
            axis.set_yscale("log")
        if len(xticks):
            axis.set_xticks(xticks, [f"{tick:g}" for tick in xticks])
            axis.minorticks_off()
        axis.set(xlim=xlim, ylim=ylim)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        if len(lines) > 1:
            axis.legend(frameon=False)
        return fig


def curve_panels(panels, xlabel, ylabel="", logx=False, logy=False, ylim=None, columns=2, size=(4.0, 2.5)):
    """Several pictures of lines, {title: {name: (x, y)}}, on the same axes, with one legend; points are larger."""
    rows = -(-len(panels) // columns)
    with figure(rows, columns, (columns * size[0], rows * size[1] + 0.4), sharex=True, sharey=True) as (fig, axes):
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
            for (name, (x, y)), colour, marker in zip(lines.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
                dot, every = 8 if len(x) == 1 else 4, max(1, len(x) // 12)
                axis.plot(x, y, color=colour, marker=marker, markersize=dot, markevery=every, label=name)
            axis.set_title(title)
            if logx:
                axis.set_xscale("log")
            if logy:
                axis.set_yscale("log")
            if ylim is not None:
                axis.set_ylim(*ylim)
        for axis in axes[-1]:
            axis.set_xlabel(xlabel)
        for axis in axes[:, 0]:
            axis.set_ylabel(ylabel)
        handles, names = axes[0, 0].get_legend_handles_labels()
        if len(names) > 1:
            fig.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        return fig


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


def training_levels(draws, lines, ylabel, title="", ylim=None, limits=(2e-4, 500.0)):
    """Noise levels drawn in training, as a histogram over a logarithmic axis, behind lines {name: (sigma, value)}."""
    with figure(size=(7.5, 3.4)) as (fig, axes):
        axis, behind = axes[0, 0], axes[0, 0].twinx()
        edges = torch.linspace(*[math.log(limit) for limit in limits], 61).exp()
        share = torch.full((len(draws),), 100 / len(draws))
        behind.hist(draws, bins=edges, weights=share, color="0.85")
        behind.set_ylabel("draws in a bin (%, grey)")
        behind.grid(False)
        axis.set_zorder(behind.get_zorder() + 1)
        axis.patch.set_visible(False)
        for (name, (x, y)), colour, marker in zip(lines.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
            axis.plot(x, y, color=colour, marker=marker, markersize=4, label=name)
        axis.set_xscale("log")
        axis.set_xlim(*limits)
        if ylim is not None:
            axis.set_ylim(*ylim)
        axis.set_xlabel("noise level σ")
        axis.set_ylabel(ylabel)
        axis.set_title(title)
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


def field(places, arrows, likelihood, points, weights, x, answer, title=""):
    """Images of two pixels as points of a plane: which way arrows lead, and what a denoiser makes of one image.

    `places` (K, 2), `arrows` (K, 2), drawn at equal length; `likelihood` (n, n) over [-2, 2] x [-2, 2], shaded;
    `points` (N, 2), drawn larger the larger their `weights` (N,); `x` (2,) and the `answer` (2,) to it.
    """
    with figure(size=(5.2, 5.5)) as (fig, axes):
        axis = axes[0, 0]
        extent = (-2, 2, -2, 2)
        axis.imshow(likelihood.T, cmap="Greys", vmin=0, vmax=2 * likelihood.max(), extent=extent, origin="lower")
        length = arrows.norm(dim=1, keepdim=True).clamp(min=1e-12)
        unit = {"scale": 24, "width": 0.0035, "color": "0.35", "pivot": "mid"}
        axis.quiver(*places.T, *(arrows / length).T, **unit)
        axis.scatter(
            *points.T, s=25 + 400 * weights, color=COLOURS[0], edgecolor="white", label="clean images y", zorder=3
        )
        axis.plot(*torch.stack([x, answer]).T, "--", color=COLOURS[1], zorder=4)
        axis.plot(*x[:, None], "X", color=COLOURS[1], markersize=11, markeredgecolor="white", label="x", zorder=5)
        axis.plot(
            *answer[:, None], "*", color=COLOURS[1], markersize=15, markeredgecolor="white", label="D(x; σ)", zorder=5
        )
        axis.set_xlim(-2, 2)
        axis.set_ylim(-2, 2)
        axis.set_aspect("equal")
        axis.grid(False)
        axis.set_xlabel("left pixel (−1 black, 1 white)")
        axis.set_ylabel("right pixel")
        axis.set_title(title)
        legend = fig.legend(loc="outside lower center", ncols=3, frameon=False)
        legend.legend_handles[0].set_sizes([60])
        return fig


def clouds(groups, limit=1.5, size=2.7):
    """Images of two pixels as points of a plane: {title: points (N, 2)} side by side, from -`limit` to `limit`."""
    with figure(1, len(groups), (len(groups) * size, size + 0.5), sharex=True, sharey=True) as (fig, axes):
        for axis, (title, points) in zip(axes[0], groups.items(), strict=True):
            axis.plot(*points.T, ".", color="black", markersize=2, alpha=0.4)
            axis.set_title(title)
            axis.set_xlim(-limit, limit)
            axis.set_ylim(-limit, limit)
            axis.set_xticks([-1, 0, 1])
            axis.set_yticks([-1, 0, 1])
            axis.set_aspect("equal")
            axis.set_xlabel("left pixel")
        axes[0, 0].set_ylabel("right pixel")
        return fig


def paths(panels, highlight=None, tangent=None):
    """Solutions x(t) side by side, {title: (t (T,), x (T, B), label of t, label of x)}; t falls from left to right.

    Path number `highlight` is drawn bold; `tangent`, ((t, x) at its start, (t, x) at its end), is dashed.
    """
    size = (3.4 * len(panels), 3.2) if len(panels) > 1 else (7, 3.4)
    with figure(1, len(panels), size) as (fig, axes):
        for axis, (title, (t, x, xlabel, ylabel)) in zip(axes[0], panels.items(), strict=True):
            for number, line in enumerate(x.T):
                bold = number == highlight
                axis.plot(t, line, color=COLOURS[0] if bold else "0.65", linewidth=2.5 if bold else 1, zorder=2 + bold)
            axis.set_xlim(max(t), min(t))
            axis.set_title(title)
            axis.set_xlabel(xlabel)
            axis.set_ylabel(ylabel)
        if tangent is not None:
            start, end = tangent
            axes[0, 0].plot(*zip(start, end, strict=True), "--", color=COLOURS[1], linewidth=2, zorder=4)
            axes[0, 0].plot(*start, "o", color=COLOURS[1], markersize=7, zorder=5)
            axes[0, 0].plot(*end, "*", color=COLOURS[1], markersize=16, clip_on=False, zorder=5)
        return fig


def shapes(stages, skips=()):
    """Tensors on their way through a network, {name: (C, H, W)} from left to right; arrows join the pairs in `skips`.

    Each is a box as high as its resolution and wider with more channels; lower resolutions stand lower.
    """
    names, most = list(stages), max(shape[0] for shape in stages.values())
    top, low = max(shape[1] for shape in stages.values()), min(shape[1] for shape in stages.values())
    roofs = {name: 2 * (shape[1] - top) for name, shape in stages.items()}
    with figure(size=(0.85 * len(stages) + 0.6, 4.6)) as (fig, axes):
        axis = axes[0, 0]
        for place, (name, (C, H, W)) in enumerate(stages.items()):
            axis.bar(place, H, 0.2 + 0.6 * C / most, bottom=roofs[name] - H, color="0.85", edgecolor="0.3")
            axis.text(place, roofs[name] - H / 2, f"{C} × {H} × {W}", rotation=90, ha="center", va="center", fontsize=9)
            short = name.replace("coder.", "c\n", 1)
            axis.text(place, roofs[name] - H - 0.4, short, ha="center", va="top", fontsize=9)
        for start, end in skips:
            (x0, y0), (x1, y1) = [(names.index(name), roofs[name] + 0.1) for name in (start, end)]
            arrow = {"arrowstyle": "->", "color": COLOURS[0], "connectionstyle": f"arc3,rad={-0.6 / (x1 - x0) ** 0.6}"}
            axis.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        axis.set_xlim(-0.6, len(stages) - 0.4)
        axis.set_ylim(low - 2 * top - 3, top / 3 if skips else 1)
        axis.axis("off")
        return fig


def heatmap(values, xlabel, ylabel, extent=None, limits=None, title="", size=(7, 3.2)):
    """A matrix (rows, columns) as an image with its scale; rows go down, `extent` is (left, right, bottom, top)."""
    with figure(size=size) as (fig, axes):
        axis = axes[0, 0]
        low, high = limits or (values.min(), values.max())
        drawn = axis.imshow(
            values, cmap="viridis", vmin=low, vmax=high, extent=extent, aspect="auto", interpolation="nearest"
        )
        fig.colorbar(drawn, ax=axis)
        axis.grid(False)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        axis.set_title(title)
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
            box = plt.Rectangle(corner, W / w, H / h, fill=False, edgecolor=COLOURS[1], linewidth=2.5, zorder=5)
            axis.add_patch(box)
        extent = (-0.5, W - 0.5, H - 0.5, -0.5)
        axes[0, 1].imshow(weights, cmap="viridis", vmin=0, extent=extent, interpolation="nearest", zorder=2)
        axes[0, 1].contour(clean[0], levels=[0.0], colors="white", linewidths=1.5, zorder=3)
        fig.suptitle(title, fontsize=11)
        return fig


def bars(groups, xlabels, size=(8, 3.6)):
    """Horizontal bars side by side: {name: one value a group}, with one label a group on its x axis."""
    names = list(groups)
    with figure(1, len(xlabels), size, sharey=True) as (fig, axes):
        for number, (axis, label) in enumerate(zip(axes[0], xlabels, strict=True)):
            axis.set_axisbelow(True)
            axis.barh(names, [values[number] for values in groups.values()], color=COLOURS[number])
            axis.set_xlabel(label)
        axes[0, 0].invert_yaxis()
        return fig


def maps(values, titles, mark=None, size=2.2):
    """Matrices (H, W) from 0 up as a row of images, each brightest at its largest entry; `mark` is a pixel."""
    with figure(1, len(values), (len(values) * size, size + 0.4)) as (fig, axes):
        for axis, value, title in zip(axes[0], values, titles, strict=True):
            axis.imshow(value / value.max(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
            if mark is not None:
                axis.plot(mark[1], mark[0], "+", color="white", markersize=9)
            axis.set_title(title)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(False)
        return fig


def progress(losses, images, title=""):
    """How training goes: `losses`, {name: (images seen, loss)}, on the left, and images (B, C, H, W) on the right."""
    with figure(1, 2, (8.5, 3.4), width_ratios=[1.5, 1]) as (fig, axes):
        axis = axes[0, 0]
        for (name, (x, y)), colour, marker in zip(losses.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
            axis.plot(x, y, color=colour, marker=marker, markersize=4, markevery=max(1, len(x) // 12), label=name)
        axis.set_yscale("log")
        axis.set_xlabel("images seen")
        axis.set_ylabel("loss")
        axis.legend(frameon=False)
        columns = math.ceil(len(images) ** 0.5)
        grid = make_grid(images.detach().float().cpu().clamp(-1, 1), nrow=columns, padding=1, pad_value=0.0)
        show_image(axes[0, 1], grid, title)
        return fig
