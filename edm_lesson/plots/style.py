"""One style for all pictures: white, without colour still readable; and the figure that all of them start from."""

import gc
import math
import sys
from contextlib import contextmanager
from itertools import cycle

import matplotlib.figure
import matplotlib.pyplot as plt
from matplotlib.ticker import LogFormatter
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


class Figure(matplotlib.figure.Figure):
    """A figure that IPython shows with `describe` of it as `metadata["image/png"]["alt"]`.

    Making one frees those before it, of which IPython's `Out` keeps none but the last: each is some ten thousand
    objects in a circle, and left to Python they pile up until it stops a moving slider to search them all.
    """

    def __init__(self, *args, **kwargs):
        forget_shown()
        gc.collect()
        super().__init__(*args, **kwargs)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {}, {"image/png": {"alt": describe(self)}}


def forget_shown():
    """Take the course's figures out of IPython's `Out` and its `_1`, `_2`, ...; the last three results keep theirs."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    out = shell.user_ns.get("_oh", {})
    for number in [number for number, shown in out.items() if isinstance(shown, Figure)]:
        del out[number]
        for names in (shell.user_ns, shell.user_ns_hidden):
            names.pop(f"_{number}", None)


@contextmanager
def blank(size=None, layout=None):
    """A figure without axes in the course's style; closed on leaving."""
    with plt.rc_context(STYLE):
        fig = plt.figure(figsize=size, layout=layout, FigureClass=Figure)
        try:
            yield fig
        finally:
            plt.close(fig)


@contextmanager
def figure(rows=1, columns=1, size=None, **subplots):
    """A figure and its axes (always a 2-D array), for which a layout is found; otherwise like `blank`."""
    with blank(size, "constrained") as fig:
        yield fig, fig.subplots(rows, columns, squeeze=False, **subplots)


class PowersOfTen(LogFormatter):
    """The marks of a logarithmic axis as plain text, 10⁻² or 0.6: as formulas they take half of a figure's time."""

    def __call__(self, x, pos=None):
        if not super().__call__(x, pos):
            return ""
        exponent = round(math.log10(x))
        raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{raised}" if math.isclose(x, 10.0**exponent) else f"{x:g}"


def set_logarithmic(axis, names):
    """Make those axes of `axis` logarithmic that `names` lists: "", "x", "y" or "xy"."""
    for name in names:
        getattr(axis, f"set_{name}scale")("log")
        getattr(axis, f"{name}axis").set_major_formatter(PowersOfTen())
        getattr(axis, f"{name}axis").set_minor_formatter(PowersOfTen())


def to_colors(image):
    """An image (C, H, W) in [-1, 1] as an array (H, W, 3) in [0, 1], to be drawn."""
    return ((image.detach().float().cpu().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).expand(-1, -1, 3).numpy()


def show_image(axis, image, title=""):
    """Draw one image (C, H, W) in [-1, 1] on `axis`, without ticks."""
    axis.imshow(to_colors(image), interpolation="nearest")
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color("0.8")


def show_images(axis, images, columns, title=""):
    """Draw images (B, C, H, W) as one, in rows of `columns` with a pixel between them."""
    grid = make_grid(images.detach().float().cpu().clamp(-1, 1), nrow=columns, padding=1, pad_value=0.0)
    show_image(axis, grid, title)
    axis.images[0].set_label(f"{len(images)} images in rows of {min(columns, len(images))}")


def draw_lines(axis, lines, lone=4):
    """Draw lines {name: (x, y)} on `axis`, about a dozen marks each; the mark of a single point has the size `lone`."""
    for (name, (x, y)), colour, marker in zip(lines.items(), cycle(COLORS), cycle(MARKERS), strict=False):
        size, every = lone if len(x) == 1 else 4, max(1, len(x) // 12)
        axis.plot(x, y, color=colour, marker=marker, markersize=size, markevery=every, label=name)
