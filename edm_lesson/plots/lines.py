"""Pictures of numbers: curves, levels, bars, heat maps."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor

from edm_lesson.plots import style


def smooth(values: Sequence[float], window: int = 10) -> list[float]:
    """The mean of each value and those before it: a fifth of all so far (a steep start stays), at most `window`."""
    return [fmean(values[end - min(window, 1 + end // 5) : end]) for end in range(1, len(values) + 1)]


@style.picture
def curves(
    lines: style.Lines, xlabel: str, ylabel: str, logx: bool = False, logy: bool = False, size: style.Pair = (7, 3.2),
    draws: Tensor | None = None, **settings: Any
) -> style.Figure:  # fmt: skip
    """Lines in one picture, told apart by color and marker; where y holds several values at each x, with error bars.

    `settings` are those of matplotlib's `Axes.set`. `xlim` and `ylim` hold the axes fixed, so that a slider moves the
    lines and not the axes; with both, the legend has its place below. `draws` (N,), such as the noise levels of
    training, are shown behind the lines as a grey histogram, over the logarithmic axis that `xlim` holds fixed.
    """
    fig, axis = style.figure(size)
    style.chart(axis, lines, "x" * logx + "y" * logy, xlabel=xlabel, ylabel=ylabel, **settings)
    if "xticks" in settings:
        axis.set_xticklabels([f"{tick:g}" for tick in settings["xticks"]])
        axis.minorticks_off()
    if {"xlim", "ylim"} <= set(settings):
        style.legend_below(fig, axis)
    elif len(lines) > 1:
        axis.legend()
    if draws is not None:
        behind = axis.twinx()
        counts, edges = np.histogram(draws, np.geomspace(*settings["xlim"], 61))
        behind.stairs(100 * counts / len(draws), edges, fill=True, color="0.85")
        behind.set_ylabel("draws in a bin (%, grey)")
        behind.grid(False)
        behind.tick_params(length=0)
        axis.set(zorder=1, facecolor="none")
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
def progress(losses: style.Lines, images: Tensor, title: str = "") -> style.Figure:
    """How training goes: `losses`, {name: (images seen, loss)}, on the left, and images (B, C, H, W) on the right."""
    fig, (left, right) = style.figure((8.5, 3.4), 1, 2, width_ratios=[1.5, 1])
    style.chart(left, losses, "y", xlabel="images seen", ylabel="loss")
    left.legend()
    style.show_images(right, images, math.ceil(len(images) ** 0.5), title)
    return fig


@style.picture
def dot_plot(
    groups: Mapping[str, Sequence[float]], xlabel: str, logx: bool = False, means: bool = True
) -> style.Figure:
    """What was measured of {name: one value a seed}, a row each: a mark a seed, and a line at their mean."""
    fig, axis = style.figure((7 if means else 8, 0.9 + 0.4 * len(groups)))
    looks = [(style.COLORS[0], "o")] if means else zip(style.COLORS, style.MARKERS, strict=True)
    for row, ((name, values), (color, marker)) in enumerate(zip(groups.items(), cycle(looks), strict=False)):
        axis.plot(values, [row] * len(values), marker, color=color, markersize=6, alpha=0.8, label=name)
        if means:
            axis.plot([fmean(values)] * 2, [row - 0.28, row + 0.28], "-", color=style.COLORS[1], linewidth=2)
    style.chart(axis, {}, "x" * logx, ylim=(len(groups) - 0.5, -0.5), xlabel=xlabel)
    axis.set_yticks(range(len(groups)), groups)
    return fig


@style.picture
def steps(schedules: Mapping[str, style.Numbers]) -> style.Figure:
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


@style.picture
def bars(groups: Mapping[str, Sequence[float]], xlabels: Sequence[str], size: style.Pair = (8, 3.6)) -> style.Figure:
    """Horizontal bars side by side: {name: one value a group}, with one label a group on its x axis."""
    fig, _ = style.figure(size, 1, len(xlabels), sharey=True)
    for number, (axis, label) in enumerate(zip(fig.axes, xlabels, strict=True)):
        values = [numbers[number] for numbers in groups.values()]
        axis.barh(list(groups), values, color=style.COLORS[number], label=list(groups), zorder=2)
        axis.set_xlabel(label)
    fig.axes[0].invert_yaxis()
    return fig
