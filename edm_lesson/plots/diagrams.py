"""Pictures of what has no axis of its own: score fields, clouds of points, paths, designs, the shape of a network."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.ticker import NullLocator
from torch import Tensor

from edm_lesson.plots import style

BLUE, RED = style.COLORS[:2]


@style.picture
def field(
    places: Tensor, arrows: Tensor, likelihood: Tensor, points: Tensor, weights: Tensor, x: Tensor, answer: Tensor,
    title: str = ""
) -> style.Figure:  # fmt: skip
    """Images of two pixels as points of a plane: which way arrows lead, and what a denoiser makes of one image.

    `places` (K, 2), `arrows` (K, 2), drawn at equal length; `likelihood` (n, n) over [-2, 2] x [-2, 2], shaded;
    `points` (N, 2), drawn larger the larger their `weights` (N,); `x` (2,) and the `answer` (2,) to it.
    """
    fig, axes = style.figure(size=(5.2, 5.5))
    axis, ends = axes[0, 0], {"color": RED, "markeredgecolor": "white", "zorder": 5}
    shade = {"cmap": "Greys", "vmin": 0, "vmax": 2 * likelihood.max(), "extent": (-2, 2, -2, 2), "origin": "lower"}
    axis.imshow(likelihood.T.numpy(), **shade)
    length = arrows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    axis.quiver(*places.T, *(arrows / length).T, scale=24, width=0.0035, color="0.35", pivot="mid")
    axis.scatter(*points.T, s=25 + 400 * weights, color=BLUE, edgecolor="white", label="clean images y", zorder=3)
    axis.plot(*torch.stack([x, answer]).T, "--", color=RED, zorder=4)
    axis.plot(*x[:, None], "X", markersize=11, label="x", **ends)
    axis.plot(*answer[:, None], "*", markersize=15, label="D(x; σ)", **ends)
    axis.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", title=title)
    axis.set(xlabel="left pixel (−1 black, 1 white)", ylabel="right pixel")
    axis.grid(False)
    legend = fig.legend(loc="outside lower center", ncols=3, frameon=False)
    legend.legend_handles[0].set_sizes([60])
    return fig


@style.picture
def clouds(groups: Mapping[str, Tensor], limit: float = 1.5, size: float = 2.7) -> style.Figure:
    """Images of two pixels as points of a plane: {title: points (N, 2)} side by side, from -`limit` to `limit`."""
    fig, axes = style.figure(1, len(groups), (len(groups) * size, size + 0.5), sharex=True, sharey=True)
    scale = {"xlim": (-limit, limit), "ylim": (-limit, limit), "xticks": [-1, 0, 1], "yticks": [-1, 0, 1]}
    for axis, (title, points) in zip(axes[0], groups.items(), strict=True):
        axis.plot(*points.T, ".", color="black", markersize=2, alpha=0.4)
        axis.set(title=title, xlabel="left pixel", aspect="equal", **scale)
    axes[0, 0].set_ylabel("right pixel")
    return fig


def _draw_paths(axis, t, x, highlight, other):
    """The lines x (T, B) over t (T,); number `highlight` is bold, `other` is the look of all others."""
    for number, line in enumerate(x.T):
        bold = {"color": BLUE, "linewidth": 2.5, "zorder": 3}
        axis.plot(t, line, **(bold if number == highlight else other))


@style.picture
def paths(
    panels: Mapping[str, tuple[Tensor, Tensor, str, str]],
    highlight: int | None = None,
    tangent: tuple[style.Pair, style.Pair] | None = None,
) -> style.Figure:
    """Solutions x(t) side by side, {title: (t (T,), x (T, B), label of t, label of x)}; t falls from left to right.

    Path number `highlight` is drawn bold; `tangent`, ((t, x) at its start, (t, x) at its end), is dashed.
    """
    fig, axes = style.figure(1, len(panels), (3.4 * len(panels), 3.2) if len(panels) > 1 else (7, 3.4))
    for axis, (title, (t, x, xlabel, ylabel)) in zip(axes[0], panels.items(), strict=True):
        _draw_paths(axis, t, x, highlight, {"color": "0.65", "linewidth": 1, "zorder": 2})
        axis.set(xlim=(max(t), min(t)), title=title, xlabel=xlabel, ylabel=ylabel)
    if tangent is not None:
        (start, end), look = tangent, {"color": RED, "clip_on": False, "zorder": 5}
        axes[0, 0].plot(*zip(start, end, strict=True), "--", color=RED, linewidth=2, zorder=4)
        axes[0, 0].plot(*start, "o", markersize=7, **look)
        axes[0, 0].plot(*end, "*", markersize=16, **look)
    return fig


@style.picture
def flows(panels: Mapping[str, tuple], highlight: int) -> style.Figure:
    """Solutions x(t) over the density that they carry, {title: (t (T,), x (T, B), grid (G,), density (G, T), step, D)}.

    t falls from left to right, density (grey) is drawn relative to its largest value at each t. Path number
    `highlight` is bold; `step`, ((t, x) at its start, (t, x) at its end), is dashed; the star at t = 0 is `D`.
    """
    fig, axes = style.figure(1, len(panels), (3.2 * len(panels), 3.4))
    look = {"color": RED, "clip_on": False, "zorder": 5}
    for axis, (title, (t, x, grid, density, (start, end), D)) in zip(axes[0], panels.items(), strict=True):
        shade = density / density.amax(0).clamp(min=1e-12)
        axis.contourf(t, grid, shade, levels=8, cmap="Greys", vmin=0, vmax=2.4)
        _draw_paths(axis, t, x, highlight, {"color": "0.25", "linewidth": 0.8, "zorder": 2})
        axis.plot(*zip(start, end, strict=True), "--", linewidth=2, **look)
        axis.plot(*start, "o", markersize=7, **look)
        axis.plot(*end, "s", markersize=7, **look)
        axis.plot(0, D, "*", markersize=15, markeredgecolor="white", **look)
        axis.set(xlim=(max(t), 0), ylim=(min(grid), max(grid)), title=title, xlabel="time t")
        axis.grid(False)
    axes[0, 0].set_ylabel("pixel x")
    return fig


@style.picture
def dashboard(
    panels: Mapping[str, tuple[style.Lines, str, str]], images: Tensor | None = None, title: str = ""
) -> style.Figure:
    """Small pictures of lines, each with axes of its own, above a row of `images` (B, C, H, W) under a `title`.

    `panels`, three to a row: {name: (lines {name: (x, y)}, label of x, logarithmic axes: "", "x", "y" or "xy")}. Lines
    of up to 40 points are marked at every one.
    """
    names = list(dict.fromkeys(name for lines, _, _ in panels.values() for name in lines))
    below = (8.8 / len(images) + 0.4 if images is not None else 0) + (0.35 if len(names) > 1 else 0)  # inches
    height = 2.2 * -(-len(panels) // 3) + below
    fig = style.Figure((9, height))  # everything has its place: to have a layout found takes a third of the time
    for place, (name, (lines, xlabel, logarithmic)) in enumerate(panels.items()):
        row, column = divmod(place, 3)
        axis = fig.add_axes((column / 3 + 0.07, 1 - (2.2 * row + 1.7) / height, 0.25, 1.4 / height))
        style.draw_lines(axis, lines)
        for line in axis.lines:
            if len(line.get_xdata()) <= 40:
                line.set(markevery=1, markersize=3)
        axis.set(title=name, xlabel=xlabel)
        style.set_logarithmic(axis, logarithmic)
        for scale in (axis.xaxis, axis.yaxis):  # few marks: they take most of the time
            few = {"numticks": 4} if scale.get_scale() == "log" else {"nbins": 4}
            scale.get_major_locator().set_params(**few)
            scale.set_minor_locator(NullLocator())
    if len(names) > 1:
        fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="lower center", ncols=len(names), frameon=False)
    if images is not None:
        size = 8.8 / len(images)
        axis = fig.add_axes((0.1 / 9, (below - 0.35 - size) / height, 8.8 / 9, size / height))
        style.show_images(axis, images, len(images), title)
    return fig


@style.picture
def shapes(stages: Mapping[str, tuple[int, int, int]], skips: Sequence[tuple[str, str]] = ()) -> style.Figure:
    """Tensors on their way through a network, {name: (C, H, W)} from left to right; arrows join the pairs in `skips`.

    Each is a box as high as its resolution and wider with more channels; lower resolutions stand lower.
    """
    names, most = list(stages), max(shape[0] for shape in stages.values())
    top, low = max(shape[1] for shape in stages.values()), min(shape[1] for shape in stages.values())
    roofs = {name: 2 * (shape[1] - top) for name, shape in stages.items()}
    fig, axes = style.figure(size=(0.85 * len(stages) + 0.6, 4.6))
    axis, centered = axes[0, 0], {"ha": "center", "fontsize": 9}
    for place, (name, (C, H, W)) in enumerate(stages.items()):
        axis.bar(place, H, 0.2 + 0.6 * C / most, bottom=roofs[name] - H, color="0.85", edgecolor="0.3")
        across = H / top < 0.4  # too low for an upright line of text
        told, turned = (f"{C} ×\n{H} × {W}", 0) if across else (f"{C} × {H} × {W}", 90)
        axis.text(place, roofs[name] - H / 2, told, rotation=turned, va="center", **centered)
        axis.text(place, roofs[name] - H - 0.4, name.replace("coder.", "c\n", 1), va="top", **centered)
    for start, end in skips:
        (x0, y0), (x1, y1) = [(names.index(name), roofs[name] + 0.1) for name in (start, end)]
        arrow = {"arrowstyle": "->", "color": BLUE, "connectionstyle": f"arc3,rad={-0.6 / (x1 - x0) ** 0.6}"}
        axis.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
    axis.set(xlim=(-0.6, len(stages) - 0.4), ylim=(low - 2 * top - 3, top / 3 if skips else 1))
    axis.axis("off")
    return fig
