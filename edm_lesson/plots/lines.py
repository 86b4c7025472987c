"""Pictures of numbers: curves, levels, bars, heat maps."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor

from edm_lesson.plots import style


@style.picture
def steps(schedules: Mapping[str, style.Numbers]) -> style.Figure:
    """Where the steps fall: for each of {name: levels} a row of marks on a logarithmic axis, without the final 0."""
    fig, axes = style.figure(size=(8, 0.8 + 0.45 * len(schedules)))
    axis = axes[0, 0]
    for row, (name, color, marker) in enumerate(zip(schedules, style.COLORS * 2, style.MARKERS * 2, strict=False)):
        levels = [float(level) for level in schedules[name] if level > 0]
        axis.plot(levels, [row] * len(levels), marker, color=color, markersize=6, alpha=0.8, label=name)
    style.set_logarithmic(axis, "x")
    axis.invert_xaxis()
    axis.set_yticks(range(len(schedules)), schedules)
    axis.set(ylim=(len(schedules) - 0.5, -0.5), xlabel="noise level σ (steps run from left to right)")
    return fig


def smooth(values: Sequence[float], window: int = 10) -> list[float]:
    """The mean of each of `values` and those before it: a fifth of all so far, at most `window`; as many as `values`.

    The window grows, so that a steep start is not flattened.
    """
    return [fmean(values[end - min(window, 1 + end // 5) : end]) for end in range(1, len(values) + 1)]


@style.picture
def curves(
    lines: style.Lines,
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    size: style.Pair = (7, 3.2),
    **scale: Any,
) -> style.Figure:
    """Lines in one picture, told apart by color and marker; where y holds several values at each x, with error bars.

    `xticks` are marked, if they are given; `xlim` and `ylim` hold the axes fixed, so that a slider moves the lines and
    not the axes; with both, the legend has its place below.
    """
    fig, axes = style.figure(size=size)
    axis, xticks = axes[0, 0], scale.pop("xticks", ())
    style.draw_lines(axis, lines)
    style.set_logarithmic(axis, "x" * logx + "y" * logy)
    if len(xticks):
        axis.set_xticks(xticks, [f"{tick:g}" for tick in xticks])
        axis.minorticks_off()
    axis.set(xlabel=xlabel, ylabel=ylabel, **scale)
    if {"xlim", "ylim"} <= set(scale):
        style.legend_below(fig, axis)
    elif len(lines) > 1:
        axis.legend(frameon=False)
    return fig


@style.picture
def dot_plot(groups: Mapping[str, Sequence[float]], xlabel: str, logx: bool = False) -> style.Figure:
    """What was measured of {name: one value a seed}, a row each: a mark a seed, and a line at their mean."""
    fig, axes = style.figure(size=(7, 1.0 + 0.38 * len(groups)))
    axis = axes[0, 0]
    for row, (name, values) in enumerate(groups.items()):
        axis.plot(values, [row] * len(values), "o", color=style.COLORS[0], markersize=6, alpha=0.8, label=name)
        axis.plot([fmean(values)] * 2, [row - 0.28, row + 0.28], "-", color=style.COLORS[1], linewidth=2)
    style.set_logarithmic(axis, "x" * logx)
    axis.set_yticks(range(len(groups)), groups)
    axis.set(ylim=(len(groups) - 0.5, -0.5), xlabel=xlabel)
    return fig


@style.picture
def curve_panels(
    panels: Mapping[str, style.Lines], xlabel: str, ylabel: str = "", logx: bool = False, logy: bool = False,
    ylim: style.Pair | None = None, columns: int = 2, size: style.Pair = (4.0, 2.5)
) -> style.Figure:  # fmt: skip
    """Several pictures of lines, {title: {name: (x, y)}}, on the same axes, with one legend; points are larger."""
    rows = -(-len(panels) // columns)
    fig, axes = style.figure(rows, columns, (columns * size[0], rows * size[1] + 0.4), sharex=True, sharey=True)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        style.draw_lines(axis, lines, lone=8)
        style.set_logarithmic(axis, "x" * logx + "y" * logy)
        axis.set(title=title, ylim=ylim)
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    style.legend_below(fig, axes[0, 0])
    return fig


@style.picture
def training_levels(
    draws: Tensor,
    lines: style.Lines,
    ylabel: str,
    title: str = "",
    ylim: style.Pair | None = None,
    limits: style.Pair = (2e-4, 500.0),
) -> style.Figure:
    """Noise levels drawn in training, as a histogram over a logarithmic axis, behind lines {name: (sigma, value)}."""
    fig, axes = style.figure(size=(7.5, 3.4))
    axis, behind = axes[0, 0], axes[0, 0].twinx()
    counts, edges = np.histogram(draws, np.geomspace(*limits, 61))
    behind.stairs(100 * counts / len(draws), edges, fill=True, color="0.85")
    behind.set_ylabel("draws in a bin (%, grey)")
    behind.grid(False)
    behind.tick_params(length=0)
    axis.set_zorder(behind.get_zorder() + 1)
    axis.patch.set_visible(False)
    style.draw_lines(axis, lines)
    style.set_logarithmic(axis, "x")
    axis.set(xlim=limits, ylim=ylim, xlabel="noise level σ", ylabel=ylabel, title=title)
    style.legend_below(fig, axis)
    return fig


@style.picture
def heatmap(
    values: Tensor, xlabel: str, ylabel: str, extent: Any = None, limits: Any = (None, None), title: str = ""
) -> style.Figure:
    """A matrix (rows, columns) as an image with its scale; rows go down, `extent` is (left, right, bottom, top)."""
    fig, axes = style.figure(size=(7, 3.2))
    axis, (low, high) = axes[0, 0], limits
    shown = {"cmap": "viridis", "vmin": low, "vmax": high, "aspect": "auto", "interpolation": "nearest"}
    fig.colorbar(axis.imshow(values.numpy(), extent=extent, **shown), ax=axis)
    axis.grid(False)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return fig


@style.picture
def bars(groups: Mapping[str, Sequence[float]], xlabels: Sequence[str], size: style.Pair = (8, 3.6)) -> style.Figure:
    """Horizontal bars side by side: {name: one value a group}, with one label a group on its x axis."""
    fig, axes = style.figure(1, len(xlabels), size, sharey=True)
    for number, (axis, label) in enumerate(zip(axes[0], xlabels, strict=True)):
        axis.set_axisbelow(True)
        axis.barh(list(groups), [values[number] for values in groups.values()], color=style.COLORS[number])
        axis.set_xlabel(label)
    axes[0, 0].invert_yaxis()
    return fig


@style.picture
def progress(losses: style.Lines, images: Tensor, title: str = "") -> style.Figure:
    """How training goes: `losses`, {name: (images seen, loss)}, on the left, and images (B, C, H, W) on the right."""
    fig, axes = style.figure(1, 2, (8.5, 3.4), width_ratios=[1.5, 1])
    style.draw_lines(axes[0, 0], losses)
    style.set_logarithmic(axes[0, 0], "y")
    axes[0, 0].set(xlabel="images seen", ylabel="loss")
    axes[0, 0].legend(frameon=False)
    style.show_images(axes[0, 1], images, math.ceil(len(images) ** 0.5), title)
    return fig
