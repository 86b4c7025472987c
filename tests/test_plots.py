"""Pictures keep still under a slider, and say their numbers without formulas, which are slow."""

import io
import subprocess
import sys

import matplotlib.style
import pytest
import torch
from matplotlib.colors import to_hex

from edm_lesson import plots

levels = torch.logspace(-2.5, 1.9, 20)


def texts(labels):
    return [label.get_text() for label in labels if label.get_text()]


def test_marks_of_a_logarithmic_axis_are_plain_text_also_within_a_decade():
    fig = plots.curves({"loss": (levels, torch.linspace(0.31, 0.92, 20))}, "σ", "loss", logx=True, logy=True)
    fig.canvas.draw()
    (axis,) = fig.axes
    assert {"10⁻²", "10⁻¹", "10⁰", "10¹"} <= set(texts(axis.get_xticklabels()))
    assert "0.6" in texts(axis.get_yticklabels(minor=True))
    every = [*axis.get_xticklabels(which="both"), *axis.get_yticklabels(which="both")]
    assert not any("$" in text for text in texts(every))


def test_a_legend_has_one_place_where_a_slider_holds_the_axes_fixed():
    rising, fixed = {"a": (levels, levels), "b": (levels, levels**2)}, {"xlim": (0.001, 100), "ylim": (0, 1000)}
    (below,) = plots.curves(rising, "σ", "error", **fixed).legends
    assert texts(below.get_texts()) == ["a", "b"]
    assert plots.curves(rising, "σ", "error").axes[0].get_legend()


def test_words_may_stand_where_numbers_would_on_an_axis():
    named = {"xticks": range(3), "xticklabels": ["conv_in", "encoder.0", "mlp"]}
    (axis,) = plots.curves({"FLOPs": (range(3), [1, 5, 2])}, "", "share (%)", **named).axes
    assert texts(axis.get_xticklabels()) == named["xticklabels"]
    (axis,) = plots.curves({"error": ([1, 10], [1, 2])}, "steps", "", logx=True, xticks=[1, 10]).axes
    assert texts(axis.get_xticklabels()) == ["1", "10"]


def test_many_decades_have_no_marks_between_them():
    fig = plots.curves({"loss": (levels, levels)}, "σ", "loss", logx=True, ylim=(1, 2))
    fig.canvas.draw()
    assert not len(fig.axes[0].get_xticks(minor=True)), "they take half of a figure's time"


def test_importing_and_drawing_change_nothing_in_the_process():
    code = """
import gc, sys
before = gc.get_freeze_count(), gc.get_threshold(), gc.isenabled()
import matplotlib
def settings():
    return [(name, matplotlib.rcParams[name]) for name in matplotlib.rcParams if name != "backend"]
found = settings()
from edm_lesson import plots
plots.steps({"a": [2, 1]})._repr_png_()
assert (gc.get_freeze_count(), gc.get_threshold(), gc.isenabled()) == before
assert settings() == found
assert "matplotlib.pyplot" not in sys.modules, "it chooses a backend, and lists figures"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


LINES, IMAGES = {"a": (levels, levels), "b": (levels, levels**2)}, torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)


@pytest.mark.parametrize("style", ["dark_background", "classic", {"text.usetex": True, "savefig.facecolor": "black"}])
@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.curves(LINES, "σ", "loss"),
        lambda: plots.strip([IMAGES, IMAGES], ["σ = 1", "σ = 0"], row_labels=["x", "y"]),
        lambda: plots.dashboard({"loss": (LINES, "σ", "x")}, IMAGES, "drawn"),
    ],
    ids=["curves", "strip", "dashboard"],
)
def test_a_reader_s_own_style_changes_no_pixel_and_no_word(draw, style):
    """Dark themes set white ink; TeX may be missing; axes find their marks and limits only when they are drawn."""

    def look(fig):
        shown = fig._repr_mimebundle_(), fig._repr_png_()  # in IPython's order
        fig.savefig(saved := io.BytesIO())
        return shown, saved.getvalue()

    plain = look(draw())
    with matplotlib.style.context(style):
        assert look(draw()) == plain


def test_ink_is_black_on_white_paper_under_a_dark_theme():
    with matplotlib.style.context("dark_background"):
        fig = plots.curves(LINES, "σ", "loss", logx=True)
        assert fig._repr_png_()
    (axis,) = fig.axes
    assert {to_hex(part.get_facecolor()) for part in (fig, axis)} == {"#ffffff"}
    ink = [axis.xaxis.label, *axis.get_xticklabels(), *axis.get_legend().get_texts()]
    assert {to_hex(text.get_color()) for text in ink} == {"#000000"}


class Elsewhere(torch.Tensor):
    """A tensor on another device, as far as one can be had without: NumPy can't read it before it is moved."""

    def __array__(self, dtype=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def numpy(self):
        self.__array__()

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_pictures_are_drawn_from_tensors_on_any_device_and_with_gradients():
    def there(tensor):
        return tensor.clone().requires_grad_(True).as_subclass(Elsewhere)

    images, level = there(torch.zeros(2, 1, 8, 8)), there(levels)
    with pytest.raises(TypeError):
        images.numpy()
    drawn = [
        plots.image_grid(images),
        plots.strip([images, images], ["x", "D"]),
        plots.panels([images[0], there(torch.eye(8))], ["x", "weights"], box=(4, 4, 1, 2)),
        plots.histograms([images], ["x"]),
        plots.curves({"a": (level, level)}, "σ", "loss", logx=True),
        plots.steps({"a": level}),
        plots.heatmap(there(torch.eye(2)), "x", "y"),
        plots.paths({"a": (level, there(torch.ones(20, 3)), "t", "x", {"o": level[:2], "*": (0, level[2])})}, 1),
        plots.clouds({"a": there(torch.ones(3, 2))}),
        plots.dashboard({"a": ({"b": (level, level)}, "x", "")}, images),
    ]
    assert all(fig._repr_png_() for fig in drawn)
