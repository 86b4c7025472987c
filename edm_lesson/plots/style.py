"""One style for all pictures: white, without colour still readable; and the figure that all of them start from."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from itertools import cycle
from statistics import fmean
from typing import Any

import matplotlib.figure
import matplotlib.style
import numpy as np
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import LogFormatter
from torch import Tensor
from torchvision.utils import make_grid

from edm_lesson.plots.alt_text import describe

STYLE = {  # over matplotlib's default
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 11,
    "axes.titlesize": 11,
    "figure.titlesize": 11,
    "legend.frameon": False,
    "axes.titley": 1.0,  # looking for a better place takes a fifth of a figure's time
    "image.interpolation": "nearest",
}
# Four of Wong's palette, black and a wine red: told apart by colour-blind readers and, with 3:1, against white.
# Markers tell lines apart without colour.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#882255"]
BLUE, RED = COLORS[:2]
MARKERS = ["o", "s", "^", "D", "v", "P"]

Lines = Mapping[str, tuple[Sequence[float] | Tensor, Any]]  # {name: (x, y)}; y: as many numbers, or several at each
Pair = tuple[float, float]


in_style = matplotlib.style.context(["default", STYLE])  # decorates what draws: the reader's own style has no say


class Figure(matplotlib.figure.Figure):
    """A figure that pyplot knows nothing of; IPython keeps `describe` of it beside its picture."""

    draw = in_style(matplotlib.figure.Figure.draw)  # which makes the marks of axes
    savefig = in_style(matplotlib.figure.Figure.savefig)  # which chooses the paper

    def _repr_png_(self):
        FigureCanvasAgg(self).print_png(png := io.BytesIO())  # `savefig` would draw twice
        return png.getvalue()

    @in_style  # axes find their limits when they are first asked for them
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {}, {"image/png": {"alt": describe(self)}}


if shell := get_ipython():  # any slider makes IPython print figures itself, by `savefig`; not this kind
    shell.display_formatter.formatters["image/png"].for_type(Figure, Figure._repr_png_)


def picture(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let `draw` work in the course's style and on tensors wherever they lie, also with gradients."""

    @wraps(draw)
    @in_style
    def drawn(*args: Any, **settings: Any) -> Figure:
        return draw(*on_cpu(args), **on_cpu(settings))

    return drawn


def on_cpu(value: Any) -> Any:
    """`value` with its tensors on the CPU and without gradients, also those in dictionaries, lists and tuples."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {name: on_cpu(part) for name, part in value.items()}
    return [on_cpu(part) for part in value] if isinstance(value, list | tuple) else value


def figure(
    size: Pair, rows: int = 1, columns: int = 1, edges: Sequence[float] | None = None, below: float = 0, **subplots: Any
) -> tuple[Figure, Any]:
    """A figure of `size` (width, height) and its axes as `subplots` gives them, for which a layout is found.

    With `edges` (left, right, bottom, top) none is, in half the time: all axes are of one size, with so much around
    each for its words, and the figure's foot is left free up to `below`. All in inches.
    """
    if edges is None:
        fig = Figure(size, layout="constrained")
    else:
        (width, height), (left, right, bottom, top) = size, edges
        across, up = width / columns - left - right, (height - below) / rows - bottom - top  # the axes themselves
        fig = Figure(size)
        fig.subplots_adjust(left / width, (below + bottom) / height, 1 - right / width, 1 - top / height)
        fig.subplots_adjust(wspace=(left + right) / across, hspace=(bottom + top) / up)
    return fig, fig.subplots(rows, columns, **subplots)


class PowersOfTen(LogFormatter):
    """The marks of a logarithmic axis as plain text, 10⁻² or 0.6: as formulas they take half of a figure's time."""

    def __call__(self, x, pos=None):
        if not super().__call__(x, pos):
            return ""
        exponent = round(math.log10(x))
        raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{raised}" if math.isclose(x, 10.0**exponent) else f"{x:g}"


def chart(axis: Axes, lines: Lines, logarithmic: str = "", lone: int = 4, **settings: Any) -> None:
    """Draw lines on `axis`, marked at all of up to 36 points, else a dozen; a single one's mark has the size `lone`.

    Where there are several values at each x, a line leads through their means, with bars from the least to the largest.
    The axes "", "x", "y" or "xy" become `logarithmic`; `settings` are those of `axis.set`.
    """
    for (name, (x, y)), color, marker in zip(lines.items(), cycle(COLORS), cycle(MARKERS), strict=False):
        if len(y) and isinstance(y[0], list):
            ends, y = [[min(values), max(values)] for values in y], [fmean(values) for values in y]
            axis.errorbar(x, y, np.abs(np.transpose(ends) - y), fmt="none", ecolor=color, capsize=3)
        look = {"color": color, "marker": marker, "markersize": lone if len(x) == 1 else 4}
        axis.plot(x, y, label=name, markevery=1 if len(x) <= 36 else len(x) // 12, **look)
    for name in logarithmic:
        getattr(axis, f"set_{name}scale")("log")
        scale = getattr(axis, f"{name}axis")
        scale.set_major_formatter(PowersOfTen())
        scale.set_minor_formatter(PowersOfTen())
        scale.get_minor_locator().set_params(numticks=4)  # none over more decades: they take half of a figure's time
    axis.set(**settings)


def legend_below(fig: Figure, axis: Axes) -> None:
    """Name the lines of `axis` in a row below the figure, where there are several."""
    handles, names = axis.get_legend_handles_labels()
    if len(names) > 1:
        fig.legend(handles, names, loc="outside lower center", ncols=len(names))


def to_colors(image: Tensor) -> np.ndarray:
    """An image (C, H, W) in [-1, 1] as an array (H, W, 3) in [0, 1], to be drawn."""
    return ((image.float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).expand(-1, -1, 3).numpy()


def show_image(axis: Axes, image: Tensor, title: str = "") -> None:
    """Draw an image (C, H, W) in [-1, 1], or a matrix (H, W) from 0 up, brightest at its largest, without ticks."""
    axis.imshow(to_colors(image) if image.ndim == 3 else image.numpy(), vmin=0)
    axis.set(title=title, xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set(visible=True, color="0.8")


def show_images(axis: Axes, images: Tensor, columns: int, title: str = "") -> None:
    """Draw images (B, C, H, W) as one, in rows of `columns` with a pixel between them."""
    show_image(axis, make_grid(images.float().clamp(-1, 1), nrow=columns, padding=1), title)
    axis.images[0].set_label(f"{len(images)} images in rows of {columns}")
