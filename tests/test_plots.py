"""Pictures keep still under a slider, and say their numbers without formulas, which are slow."""

import subprocess
import sys

import torch

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


def test_no_slider_waits_until_all_that_was_imported_is_searched_for_garbage():
    count = "import gc; from edm_lesson import plots; print(len(gc.get_objects()), gc.get_freeze_count())"
    searched, spared = map(int, subprocess.check_output([sys.executable, "-c", count], text=True).split())
    assert spared > 100_000 > 20 * searched
