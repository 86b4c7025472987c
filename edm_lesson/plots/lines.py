"""Pictures of numbers: curves, levels, bars, heat maps."""

import math
from itertools import cycle
from statistics import fmean

import torch
from matplotlib.ticker import NullLocator

from edm_lesson.plots.style import COLORS, MARKERS, draw_lines, figure, set_logarithmic, show_images


def steps(schedules):
    """Where the steps fall: for each of {name: levels} a row of marks on a logarithmic axis, without the final 0."""
    with figure(size=(8, 0.8 + 0.45 * len(schedules))) as (fig, axes):
        axis = axes[0, 0]
        for row, (name, colour, marker) in enumerate(zip(schedules, COLORS * 2, MARKERS * 2, strict=False)):
            levels = torch.as_tensor(schedules[name])
            axis.plot(
                levels[levels > 0],
                torch.full_like(levels[levels > 0], row),
                marker,
                color=colour,
                markersize=6,
                alpha=0.8,
                label=name,
            )
        set_logarithmic(axis, "x")
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

    `xlim` and `ylim` hold the axes fixed, so that a slider moves the lines and not the axes; with both, the legend
    has its place below.
    """
    with figure(size=size) as (fig, axes):
        axis = axes[0, 0]
        draw_lines(axis, lines)
        set_logarithmic(axis, "x" * logx + "y" * logy)
        if len(xticks):
            axis.set_xticks(xticks, [f"{tick:g}" for tick in xticks])
            axis.minorticks_off()
        axis.set(xlim=xlim, ylim=ylim)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        if len(lines) > 1 and xlim and ylim:
            fig.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=len(lines), frameon=False)
        elif len(lines) > 1:
            axis.legend(frameon=False)
        return fig


def measured(lines, xlabel, ylabel, logx=False, logy=False, size=(7, 3.6)):
    """Lines {name: (x, lists of one value a seed)} through the means, with bars from the least to the largest value."""
    with figure(size=size) as (fig, axes):
        axis = axes[0, 0]
        for (name, (x, values)), colour, marker in zip(lines.items(), cycle(COLORS), cycle(MARKERS), strict=False):
            means = [fmean(each) for each in values]
            below = [mean - min(each) for mean, each in zip(means, values, strict=True)]
            above = [max(each) - mean for mean, each in zip(means, values, strict=True)]
            axis.errorbar(x, means, [below, above], color=colour, marker=marker, markersize=4, capsize=3, label=name)
        set_logarithmic(axis, "x" * logx + "y" * logy)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        if len(lines) > 1:
            axis.legend(frameon=False)
        return fig


def compared(groups, xlabel, logx=False, size=None):
    """What was measured of {name: one value a seed}, a row each: a mark a seed, and a line at their mean."""
    with figure(size=size or (7, 1.0 + 0.38 * len(groups))) as (fig, axes):
        axis = axes[0, 0]
        for row, (name, values) in enumerate(groups.items()):
            axis.plot(values, [row] * len(values), "o", color=COLORS[0], markersize=6, alpha=0.8, label=name)
            axis.plot([fmean(values)] * 2, [row - 0.28, row + 0.28], "-", color=COLORS[1], linewidth=2)
        set_logarithmic(axis, "x" * logx)
        axis.set_yticks(range(len(groups)), groups)
        axis.set_ylim(len(groups) - 0.5, -0.5)
        axis.set_xlabel(xlabel)
        return fig


def curve_panels(panels, xlabel, ylabel="", logx=False, logy=False, ylim=None, columns=2, size=(4.0, 2.5)):
    """Several pictures of lines, {title: {name: (x, y)}}, on the same axes, with one legend; points are larger."""
    rows = -(-len(panels) // columns)
    with figure(rows, columns, (columns * size[0], rows * size[1] + 0.4), sharex=True, sharey=True) as (fig, axes):
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
            draw_lines(axis, lines, lone=8)
            axis.set_title(title)
            set_logarithmic(axis, "x" * logx + "y" * logy)
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


def training_levels(draws, lines, ylabel, title="", ylim=None, limits=(2e-4, 500.0)):
    """Noise levels drawn in training, as a histogram over a logarithmic axis, behind lines {name: (sigma, value)}."""
    with figure(size=(7.5, 3.4)) as (fig, axes):
        axis, behind = axes[0, 0], axes[0, 0].twinx()
        edges = torch.linspace(*[math.log(limit) for limit in limits], 61).exp()
        share = torch.full((len(draws),), 100 / len(draws))
        behind.hist(draws, bins=edges, weights=share, color="0.85")
        behind.set_ylabel("draws in a bin (%, grey)")
        behind.grid(False)
        behind.tick_params(length=0)
        axis.set_zorder(behind.get_zorder() + 1)
        axis.patch.set_visible(False)
        draw_lines(axis, lines)
        set_logarithmic(axis, "x")
        axis.xaxis.set_minor_locator(NullLocator())  # fifty marks would take a third of the time
        axis.set_xlim(*limits)
        if ylim is not None:
            axis.set_ylim(*ylim)
        axis.set_xlabel("noise level σ")
        axis.set_ylabel(ylabel)
        axis.set_title(title)
        if len(lines) > 1:
            fig.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=len(lines), frameon=False)
        return fig


def heatmap(values, xlabel, ylabel, extent=None, limits=None, title="", size=(7, 3.2)):
    """A matrix (rows, columns) as an image with its scale; rows go down, `extent` is (left, right, bottom, top)."""
    with figure(size=size) as (fig, axes):
        axis = axes[0, 0]
        low, high = limits or (values.min(), values.max())
        drawn = axis.imshow(
            values.numpy(), cmap="viridis", vmin=low, vmax=high, extent=extent, aspect="auto", interpolation="nearest"
        )
        fig.colorbar(drawn, ax=axis)
        axis.grid(False)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        axis.set_title(title)
        return fig


def bars(groups, xlabels, size=(8, 3.6)):
    """Horizontal bars side by side: {name: one value a group}, with one label a group on its x axis."""
    names = list(groups)
    with figure(1, len(xlabels), size, sharey=True) as (fig, axes):
        for number, (axis, label) in enumerate(zip(axes[0], xlabels, strict=True)):
            axis.set_axisbelow(True)
            axis.barh(names, [values[number] for values in groups.values()], color=COLORS[number])
            axis.set_xlabel(label)
        axes[0, 0].invert_yaxis()
        return fig


def progress(losses, images, title=""):
    """How training goes: `losses`, {name: (images seen, loss)}, on the left, and images (B, C, H, W) on the right."""
    with figure(1, 2, (8.5, 3.4), width_ratios=[1.5, 1]) as (fig, axes):
        axis = axes[0, 0]
        draw_lines(axis, losses)
        set_logarithmic(axis, "y")
        axis.set_xlabel("images seen")
        axis.set_ylabel("loss")
        axis.legend(frameon=False)
        columns = math.ceil(len(images) ** 0.5)
        show_images(axes[0, 1], images, columns, title)
        return fig
