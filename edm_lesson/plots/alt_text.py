"""What a figure shows, in words: notebooks store them beside the picture, for readers who don't see it."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch


def describe(fig: Figure) -> str:
    """The alternative text of a figure: its images with their titles; its charts with where each line begins, ends
    and turns, and what the axes run over."""
    axes = [axis for axis in fig.axes if axis.get_label() != "<colorbar>"]
    charts = [axis for axis in axes if not axis.images or (axis.axison and len(axis.get_xticks()))]
    parts = [fig.get_suptitle(), _images([axis for axis in axes if axis not in charts]), *map(_chart, charts)]
    ended = " ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts if part)
    return " ".join(ended.split())


def _images(axes):
    count = f"{len(axes)} images" if len(axes) > 1 else ""
    labels = [axis.images[0].get_label() for axis in axes if not axis.images[0].get_label().startswith("_")]
    titles = dict.fromkeys(axis.get_title() for axis in axes if axis.get_title())
    return ": ".join(filter(None, [count, *labels, "; ".join(titles)]))


def _chart(axis):
    """Lines, bars and points over their axes; or, without axes, the words of a diagram."""
    if not axis.axison:
        return "Diagram: " + ", ".join(text.get_text() for text in axis.texts if text.get_text())
    told = f"{axis.get_title() or 'Chart'}: {'; '.join(_content(axis))}"
    for direction, scale in (("Across", axis.xaxis), ("Up", axis.yaxis)):
        if label := scale.get_label_text():
            start, end = scale.get_view_interval()
            spacing = ", logarithmic" if scale.get_scale() == "log" else ""
            told += f". {direction}: {label}, {start:.3g} to {end:.3g}{spacing}"
    return told


def _content(axis):
    for image in axis.images:
        yield f"a map of values from {image.norm.vmin:.3g} to {image.norm.vmax:.3g}"
    named = [line for line in axis.lines if not line.get_label().startswith("_")]
    others = [line for line in axis.lines if line not in named and line.get_marker() != "_"]  # a cap of error bars
    others = [line for line in others if len(line.get_xdata()) > 2]
    yield from [f"{line.get_label()}: {_course(line)}" for line in named[:8]]
    yield from [f"{len(named) - 8} more lines"] if len(named) > 8 else []
    yield from [f"{len(others)} lines"] if len(others) > 1 else map(_course, others)
    for patch in axis.patches:
        if isinstance(patch, StepPatch):
            values, edges, _ = patch.get_data()
            yield f"a histogram, highest near {edges[values.argmax() :][:2].mean():.3g}"
        elif not patch.get_label().startswith("_"):
            yield f"{patch.get_label()}: {patch.get_width():.3g}"
    for points in axis.collections:
        if not points.get_label().startswith("_"):
            yield f"{len(points.get_offsets())} {points.get_label()}"


def _course(line):
    """Where a line begins and ends, and the lowest and highest places between; of single marks, where they are."""
    points = line.get_xydata()[np.isfinite(line.get_ydata())]
    x, y = points[points[:, 0].argsort(kind="stable")][:: -1 if line.axes.xaxis_inverted() else 1].T
    if len(x) < 2:
        return f"at ({x[0]:.3g}, {y[0]:.3g})" if len(x) else "nothing"
    if line.get_linestyle() == "None":
        return f"{len(x)} marks from {x[0]:.3g} to {x[-1]:.3g}"
    low, high = y.argmin(), y.argmax()
    notable = max(0.1 * (y[high] - y[low]), 0.01 * abs(y[high]))
    told = f"from {y[0]:.3g} to {y[-1]:.3g}"
    told += f", lowest {y[low]:.3g} at {x[low]:.3g}" if min(y[0], y[-1]) - y[low] > notable else ""
    return told + (f", highest {y[high]:.3g} at {x[high]:.3g}" if y[high] - max(y[0], y[-1]) > notable else "")
