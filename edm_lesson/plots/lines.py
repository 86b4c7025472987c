"""Pictures of numbers: curves, paths, levels, heat maps."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean
from typing import Any

from torch import Tensor

from edm_lesson.plots import style


def smooth(values: Sequence[float], window: int = 10) -> list[float]:
    """The mean of each value and those before it: a fifth of all so far (a steep start stays), at most `window`."""
    return [fmean(values[end - min(window, 1 + end // 5) : end]) for end in range(1, len(values) + 1)]


@style.picture
def curves(
    lines: style.Lines, xlabel: str, ylabel: str, logx: bool = False, logy: bool = False, size: style.Pair = (7, 3.2),
    **settings: Any
) -> style.Figure:  # fmt: skip
    """Lines in one picture, told apart by color and marker; where y holds several values at each x, with error bars.

    `settings` are those of matplotlib's `Axes.set`. `xlim` and `ylim` hold the axes fixed, so that a slider moves the
    lines and not the axes; with both, the legend has its place below.
    """
    fig, axis = style.figure(size)
    style.chart(axis, lines, "x" * logx + "y" * logy, xlabel=xlabel, ylabel=ylabel, **settings)
    if "xticks" in settings:
        axis.set_xticklabels(settings.get("xticklabels") or [f"{tick:g}" for tick in settings["xticks"]])
        axis.minorticks_off()
    if {"xlim", "ylim"} <= set(settings):
        style.legend_below(fig, axis)
    elif len(lines) > 1:
        axis.legend()
    return fig


@style.picture
def curve_panels(
    panels: Mapping[str, style.Lines], xlabel: str, ylabel: str = "", logx: bool = False, logy: bool = False,
    ylim: style.Pair | None = None, columns: int = 2, size: style.Pair = (4.0, 2.5)
) -> style.Figure:  # fmt: skip
    """Several pictures of lines, {title: {name: (x, y)}}, on the same axes, with one legend; points are larger."""
    rows = -(-len(panels) // columns)
    fig, _ = style.figure((columns * size[0], rows * size[1] + 0.4), rows, columns, sharex=True, sharey=True)
    labels = {"xlabel": xlabel, "ylabel": ylabel, "ylim": ylim}
    for axis, (title, lines) in zip(fig.axes, panels.items(), strict=False):
        style.chart(axis, lines, "x" * logx + "y" * logy, lone=8, title=title, **labels)
        axis.label_outer()
    style.legend_below(fig, fig.axes[0])
    return fig


@style.picture
def dashboard(
    panels: Mapping[str, tuple[style.Lines, str, str]], images: Tensor | None = None, title: str = ""
) -> style.Figure:
    """A row of small pictures of lines, each with axes of its own, above `images` (B, C, H, W) under a `title`.

    `panels`: {name: (lines {name: (x, y)}, label of x, which axes are logarithmic: "", "x", "y" or "xy")}.
    """
    legend = 0.35 if any(len(lines) > 1 for lines, _, _ in panels.values()) else 0
    strip = 0 if images is None else 8.8 / len(images)  # its height
    below = legend + (strip + 0.4 if strip else 0)
    height = 2.2 + below
    fig, _ = style.figure((9, height), 1, len(panels), (0.6, 0.25, 0.5, 0.3), below)
    for axis, (name, (lines, xlabel, logarithmic)) in zip(fig.axes, panels.items(), strict=True):
        style.chart(axis, lines, logarithmic, title=name, xlabel=xlabel)
        axis.minorticks_off()  # and few others: they take most of the time
        for scale in (axis.xaxis, axis.yaxis):
            scale.get_major_locator().set_params(**{"numticks" if scale.get_scale() == "log" else "nbins": 4})
    style.legend_below(fig, fig.axes[0])
    if images is not None:
        axis = fig.add_axes((0.1 / 9, (legend + 0.05) / height, 8.8 / 9, strip / height))
        style.show_images(axis, images, len(images), title)
    return fig


@style.picture
def paths(panels: Mapping[str, tuple], highlight: int | None = None) -> style.Figure:
    """Solutions x(t) side by side, {title: (t (T,), x (T, B), label of t, label of x, ...)}; t falls to the right.

    Path number `highlight` is drawn bold. More may be given: {marker: (t, x)}, of which a dashed line joins the first
    two; then places (G,) and the density (G, T) there, drawn in grey relative to its largest value at each t.
    """
    size = (3.3 * len(panels), 3.3) if len(panels) > 1 else (7, 3.4)
    fig, _ = style.figure(size, 1, len(panels), (0.72, 0.15, 0.55, 0.3))
    for axis, (title, (t, x, xlabel, ylabel, *more)) in zip(fig.axes, panels.items(), strict=True):
        marks, *shade = more or [{}]
        axis.plot(t, x, color="0.25" if shade else "0.65", linewidth=1)
        if highlight is not None:
            axis.lines[highlight].set(color=style.BLUE, linewidth=2.5, zorder=3)
        if marks:
            axis.plot(*zip(*list(marks.values())[:2], strict=True), "--", color=style.RED, linewidth=2, zorder=4)
        look = {"color": style.RED, "markeredgecolor": "white", "clip_on": False, "zorder": 5}
        for marker, place in marks.items():
            axis.plot(*place, marker, markersize=18 if marker == "*" else 8, **look)
        axis.set(xlim=(t.max().item(), 0), title=title, xlabel=xlabel, ylabel=ylabel)
        if shade:
            places, density = shade
            density = density / density.amax(0).clamp(min=1e-12)
            axis.contourf(t, places, density, levels=8, cmap="Greys", vmin=0, vmax=2.4)
            axis.grid(False)
    return fig


@style.picture
def dot_plot(
    groups: Mapping[str, Sequence[float]], xlabel: str, logx: bool = False, means: bool = True
) -> style.Figure:
    """What was measured of {name: one value a seed}, a row each: a mark a seed, and a line at their mean."""
    fig, axis = style.figure((7 if means else 8, 0.9 + 0.4 * len(groups)))
    looks = [(style.BLUE, "o")] if means else zip(style.COLORS, style.MARKERS, strict=True)
    for row, ((name, values), (color, marker)) in enumerate(zip(groups.items(), cycle(looks), strict=False)):
        axis.plot(values, [row] * len(values), marker, color=color, markersize=6, alpha=0.8, label=name)
        if means:
            axis.plot([fmean(values)] * 2, [row - 0.28, row + 0.28], "-", color=style.RED, linewidth=2)
    style.chart(axis, {}, "x" * logx, ylim=(len(groups) - 0.5, -0.5), xlabel=xlabel)
    axis.set_yticks(range(len(groups)), groups)
    return fig


@style.picture
def steps(schedules: Mapping[str, Sequence[float] | Tensor]) -> style.Figure:
    """Where the steps fall: for each of {name: levels} a row of marks on a logarithmic axis, without the final 0."""
    above_zero = {name: [float(level) for level in levels if level > 0] for name, levels in schedules.items()}
    fig = dot_plot(above_zero, "noise level σ (steps run from left to right)", logx=True, means=False)
    fig.axes[0].invert_xaxis()
    return fig


@style.picture
def heatmap(values: Tensor, xlabel: str, ylabel: str, extent: Any = None, limits: Any = (None, None)) -> style.Figure:
    """A matrix (rows, columns) as an image with its scale; rows go down, `extent` is (left, right, bottom, top)."""
    fig, axis = style.figure((7, 3.2))
    fig.colorbar(axis.imshow(values.numpy(), extent=extent, clim=limits, aspect="auto"), ax=axis)
    axis.grid(False)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return fig
