"""One style for all pictures: white, without colour still readable; and the figure that all of them start from."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from itertools import cycle
from statistics import fmean
from typing import Any, TypeAlias

import matplotlib.figure
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import LogFormatter
from torch import Tensor
from torchvision.utils import make_grid

from edm_lesson.plots.alt_text import describe

STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titley": 1.0,  # looking for a better place takes a fifth of a figure's time
    "figure.dpi": 100,
}
# Four of Wong's palette, black and a wine red: told apart by colour-blind readers and, with 3:1, against white.
# Markers tell lines apart without colour.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#882255"]
MARKERS = ["o", "s", "^", "D", "v", "P"]

Numbers: TypeAlias = Sequence[float] | Tensor
Lines = Mapping[str, tuple[Numbers, Any]]  # {name: (x, y)}; y: as many numbers, or several of them at each x
Pair = tuple[float, float]


class Figure(matplotlib.figure.Figure):
    """A figure that pyplot knows nothing of; IPython keeps `describe` of it beside its picture."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw in the course's style, also what matplotlib makes only now, such as the marks of axes."""
        with matplotlib.style.context(["default", STYLE]):
            super().draw(renderer)

    def _repr_png_(self):
        FigureCanvasAgg(self).print_png(png := io.BytesIO())  # `savefig` would draw twice
        return png.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {}, {"image/png": {"alt": describe(self)}}


def picture(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let `draw` work in the course's style, whatever the reader's own is, and on tensors wherever they lie."""

    @wraps(draw)
    def drawn(*args: Any, **settings: Any) -> Figure:
        with matplotlib.style.context(["default", STYLE]):
            return draw(*on_cpu(args), **on_cpu(settings))

    return drawn


def on_cpu(value: Any) -> Any:
    """`value` with its tensors on the CPU and without gradients, also those in dictionaries, lists and tuples."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {name: on_cpu(part) for name, part in value.items()}
    return [on_cpu(part) for part in value] if isinstance(value, list | tuple) else value


def figure(rows: int = 1, columns: int = 1, size: Pair | None = None, **subplots: Any) -> tuple[Figure, np.ndarray]:
    """A figure for which a layout is found, and its axes, always a 2-D array."""
    fig = Figure(size, layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **subplots)


class PowersOfTen(LogFormatter):
    """The marks of a logarithmic axis as plain text, 10⁻² or 0.6: as formulas they take half of a figure's time."""

    def __call__(self, x, pos=None):
        if not super().__call__(x, pos):
            return ""
        exponent = round(math.log10(x))
        raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{raised}" if math.isclose(x, 10.0**exponent) else f"{x:g}"


def set_logarithmic(axis: Axes, names: str) -> None:
    """Make those axes of `axis` logarithmic that `names` lists: "", "x", "y" or "xy"."""
    for name in names:
        getattr(axis, f"set_{name}scale")("log")
        scale = getattr(axis, f"{name}axis")
        scale.set_major_formatter(PowersOfTen())
        scale.set_minor_formatter(PowersOfTen())
        scale.get_minor_locator().set_params(numticks=4)  # none over more decades: they take half of a figure's time


def to_colors(image: Tensor) -> np.ndarray:
    """An image (C, H, W) in [-1, 1] as an array (H, W, 3) in [0, 1], to be drawn."""
    return ((image.float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).expand(-1, -1, 3).numpy()


def without_ticks(axis: Axes, title: str = "") -> None:
    """Take the ticks off `axis`, whose image says it all, and give it a title."""
    axis.set(title=title, xticks=[], yticks=[])
    axis.grid(False)


def show_image(axis: Axes, image: Tensor, title: str = "") -> None:
    """Draw one image (C, H, W) in [-1, 1] on `axis`, without ticks."""
    axis.imshow(to_colors(image), interpolation="nearest")
    without_ticks(axis, title)
    axis.spines[:].set(visible=True, color="0.8")


def show_images(axis: Axes, images: Tensor, columns: int, title: str = "") -> None:
    """Draw images (B, C, H, W) as one, in rows of `columns` with a pixel between them."""
    columns = min(columns, len(images))
    show_image(axis, make_grid(images.float().clamp(-1, 1), nrow=columns, padding=1), title)
    axis.images[0].set_label(f"{len(images)} images in rows of {columns}")


def draw_lines(axis: Axes, lines: Lines, lone: int = 4) -> None:
    """Draw lines on `axis`, about a dozen marks each; the mark of a single point has the size `lone`.

    Where there are several values at each x, a line leads through their means, with bars from the least to the largest.
    """
    for (name, (x, y)), color, marker in zip(lines.items(), cycle(COLORS), cycle(MARKERS), strict=False):
        look = {"color": color, "marker": marker, "label": name, "markersize": lone if len(x) == 1 else 4}
        if len(y) and isinstance(y[0], list):
            means = [fmean(values) for values in y]
            reach = [[abs(end(values) - mean) for values, mean in zip(y, means, strict=True)] for end in (min, max)]
            axis.errorbar(x, means, reach, capsize=3, **look)
        else:
            axis.plot(x, y, markevery=max(1, len(x) // 12), **look)


def legend_below(fig: Figure, axis: Axes) -> None:
    """Name the lines of `axis` in a row below the figure, where there are several."""
    handles, names = axis.get_legend_handles_labels()
    if len(names) > 1:
        fig.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
