"""What a figure shows, in words: notebooks store them beside the picture, for readers who don't see it."""

import math
from collections.abc import Iterable
from itertools import groupby

from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

MOST_LINES = 8


def describe(fig: Figure) -> str:
    """The alternative text of a figure: its images with their titles; its charts with where each line begins, ends
    and turns, and what the axes run over."""
    axes = [axis for axis in fig.axes if axis.get_label() != "<colorbar>"]
    parts = [fig.get_suptitle()]
    for are_images, group in groupby(axes, _is_image):
        alike = list(group)
        parts += [_images(alike)] if are_images else [_chart(axis) for axis in alike]
    ended = " ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts if part)
    return " ".join(ended.split())


def _is_image(axis):
    return bool(axis.images) and not len(axis.get_xticks())


def rows_of_images(rows: int, columns: int, labels: Iterable[str], row_labels: Iterable[str]) -> str:
    """What an image stands for that shows several: how many, their headings, and the names of their rows."""
    count = f"{rows} rows of {columns} images" if rows > 1 else f"{columns} images"
    headings, names = "; ".join(filter(None, labels)), ", ".join(dict.fromkeys(row_labels))
    return "; rows ".join(filter(None, [": ".join(filter(None, [count, headings])), names]))


def _images(axes):
    """Images without scales: how many, their titles, and what else is known of them."""
    titles, notes = (
        [text for text in dict.fromkeys(texts) if text and not text.startswith("_")]
        for texts in ([axis.get_title() for axis in axes], [axis.images[0].get_label() for axis in axes])
    )
    told = [*notes, *titles] if len(axes) == 1 else [f"{len(axes)} images", *notes, "; ".join(titles)]
    return ": ".join(filter(None, told)) or "Image"


def _chart(axis):
    """Lines, bars and points over their axes; or, without axes, the words of a diagram."""
    if not axis.axison:
        return "Diagram: " + ", ".join(text.get_text() for text in axis.texts if text.get_text())
    maps = [f"a map of values from {image.norm.vmin:.3g} to {image.norm.vmax:.3g}" for image in axis.images]
    points = [f"{len(c.get_offsets())} {c.get_label()}" for c in axis.collections if not c.get_label().startswith("_")]
    shown = "; ".join([*maps, *_lines(axis), *_bars(axis), *points])
    told = [f"{axis.get_title()}: {shown}" if axis.get_title() else f"Chart: {shown}"]
    for direction, label, limits, scale in [
        ("Across", axis.get_xlabel(), axis.get_xlim(), axis.get_xscale()),
        ("Up", axis.get_ylabel(), axis.get_ylim(), axis.get_yscale()),
    ]:
        if label:
            spacing = ", logarithmic" if scale == "log" else ""
            told.append(f"{direction}: {label}, {limits[0]:.3g} to {limits[1]:.3g}{spacing}")
    return ". ".join(told)


def _lines(axis):
    names = {line: line.get_label() for line in axis.lines}
    names |= {bars[0]: bars.get_label() for bars in axis.containers if isinstance(bars, ErrorbarContainer)}
    named = [line for line, name in names.items() if not name.startswith("_")]
    others = [line for line in names if line not in named and len(line.get_xdata()) > 2]
    told = [f"{names[line]}: {_course(line, axis.xaxis_inverted())}" for line in named[:MOST_LINES]]
    told += [f"{len(named) - MOST_LINES} more lines"] if len(named) > MOST_LINES else []
    return told + ([f"{len(others)} lines" if len(others) > 1 else _course(others[0])] if others else [])


def _course(line, backwards=False):
    """Where a line begins and ends, and the lowest and highest places between; of single marks, where they are."""
    points = sorted([(x, y) for x, y in line.get_xydata() if math.isfinite(y)], reverse=bool(backwards))
    if not points:
        return "nothing"
    (start, first), (end, last) = points[0], points[-1]
    if len(points) == 1:
        return f"at ({start:.3g}, {first:.3g})"
    if line.get_linestyle() == "None":
        return f"{len(points)} marks from {start:.3g} to {end:.3g}"
    (lowest, low), (highest, high) = (choose(points, key=lambda point: point[1]) for choose in (min, max))
    notable = max(0.1 * (high - low), 0.01 * abs(high))
    told = f"from {first:.3g} to {last:.3g}"
    told += f", lowest {low:.3g} at {lowest:.3g}" if min(first, last) - low > notable else ""
    return told + (f", highest {high:.3g} at {highest:.3g}" if high - max(first, last) > notable else "")


def _bars(axis):
    for steps in [patch.get_data() for patch in axis.patches if isinstance(patch, StepPatch)]:
        tallest = steps.values.argmax()
        yield f"a histogram, highest near {steps.edges[tallest : tallest + 2].mean():.3g}"
    for bars in [
        bars for bars in axis.containers if isinstance(bars, BarContainer) and bars.orientation == "horizontal"
    ]:
        names = axis.yaxis.get_major_formatter().format_ticks(axis.yaxis.get_majorticklocs())
        yield from (f"{name}: {bar.get_width():.3g}" for name, bar in zip(names, bars, strict=True))
