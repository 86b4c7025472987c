"""Figures say in words what they show, and IPython stores it beside the picture."""

import json

import pytest
import torch
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from edm_lesson import course, plots
from edm_lesson.plots.alt_text import describe

images = torch.zeros(6, 1, 8, 8)
ramp = torch.linspace(1, 3, 21)


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (lambda: plots.image_grid(images, 3, "new digits"), "6 images in rows of 3: new digits."),
        (lambda: plots.image_grid(images, 8), "6 images in rows of 6."),
        (
            lambda: plots.strip([images[:2]] * 3, ["σ = 1", "σ = 0.5", "σ = 0"]),
            "2 rows of 3 images: σ = 1; σ = 0.5; σ = 0.",
        ),
        (
            lambda: plots.strip([images[:2]] * 2, ["x", "D"], row_labels=["Euler", "Heun"]),
            "2 rows of 2 images: x; D; rows Euler, Heun.",
        ),
        (lambda: plots.panels(images[:2], ["noisy", "clean"], heading="A digit?"), "A digit? 2 images: noisy; clean."),
        (
            lambda: plots.curves({"loss": (ramp, 4 - ramp)}, "images", "loss", xlim=(1, 3), ylim=(0, 5)),
            "Chart: loss: from 3 to 1. Across: images, 1 to 3. Up: loss, 0 to 5.",
        ),
        (
            lambda: plots.curves({"error": (ramp, (ramp - 2) ** 2)}, "σ", "", logx=True, xlim=(1, 3)),
            "Chart: error: from 1 to 1, lowest 0 at 2. Across: σ, 1 to 3, logarithmic.",
        ),
        (lambda: plots.steps({"even": ramp.flip(0)}), "even: 21 marks from 3 to 1."),
        (lambda: plots.measured({"Heun": ([7, 15], [[2, 4], [1, 1]])}, "nfe", "ratio"), "Heun: from 3 to 1."),
        (lambda: plots.compared({"EMA": [2.0, 3.0]}, "ratio"), "EMA: 2 marks from 2 to 3."),
        (lambda: plots.bars({"EDM": [1.5], "VP": [2.5]}, ["seconds"]), "EDM: 1.5; VP: 2.5. Across: seconds,"),
        (lambda: plots.heatmap(torch.eye(2), "x", "y", title="weights"), "weights: a map of values from 0 to 1."),
        (
            lambda: plots.dashboard({"loss": ({"a": (ramp, ramp)}, "k", "")}, images, "drawn"),
            "6 images in rows of 6: drawn.",
        ),
        (lambda: plots.shapes({"in": (1, 28, 28)}), "Diagram: 1 × 28 × 28, in."),
    ],
)
def test_the_words_say_what_is_drawn_and_where_it_leads(figure, words):
    assert words in describe(figure())


def test_lines_without_a_value_are_told_of_instead_of_failing():
    nothing = torch.full((3,), torch.nan)
    assert "b: nothing" in describe(plots.curves({"a": (ramp, ramp), "b": (nothing, nothing)}, "x", "y"))


def test_a_slider_s_largest_and_smallest_settings_have_other_words():
    assert describe(plots.denoising(*images[:3], 0.1)) != describe(plots.denoising(*images[:3], 10.0))


def test_ipython_stores_the_words_where_pages_look_for_them():
    shell = InteractiveShell.instance()
    shell.display_pub, before = CapturingDisplayPublisher(), shell.display_pub
    try:
        shell.run_cell(
            "from IPython.core.pylabtools import select_figure_formats\n"
            "select_figure_formats(get_ipython(), {'png'})\n"
            "import torch; from edm_lesson import plots\n"
            "display(plots.image_grid(torch.zeros(2, 1, 4, 4)))"
        )
        (shown,) = shell.display_pub.outputs
    finally:
        shell.display_pub = before
        InteractiveShell.clear_instance()
    assert shown["metadata"] == {"image/png": {"alt": "2 images in rows of 2."}}
    assert shown["data"]["text/plain"].startswith("<Figure size ")
    assert len(shown["data"]["image/png"]) > 100


def test_figures_that_were_shown_are_freed_and_other_results_are_kept():
    shell = InteractiveShell.instance()
    try:
        for cell in ("import weakref; from edm_lesson import plots", "40 + 2", "fig = plots.steps({'a': [2, 1]})"):
            shell.run_cell(cell, store_history=True)
        shell.run_cell("shown = weakref.ref(fig); fig", store_history=True)
        assert shell.user_ns["shown"]() is shell.user_ns["_"], "the last result is still at hand"
        shell.run_cell("del fig", store_history=True)
        for number in range(4):  # as many as `_`, `__` and `___` remember, and one more
            shell.run_cell(f"{number}", store_history=True)
        assert shell.user_ns["shown"]() is not None, "else the next line shows nothing"
        shell.run_cell("other = plots.steps({'a': [2, 1]})", store_history=True)
        assert shell.user_ns["shown"]() is None
        assert shell.user_ns["Out"][2] == shell.user_ns["_2"] == 42
    finally:
        InteractiveShell.clear_instance()


def pictures(node):
    """Every output with a picture in a notebook, those that widgets hold among them."""
    if isinstance(node, dict) and "image/png" in node.get("data", {}):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from pictures(child)


@pytest.mark.parametrize("path", course.find_notebooks(), ids=lambda path: path.stem)
def test_every_stored_picture_says_what_it_shows(path):
    found = [
        output["metadata"].get("image/png", {}).get("alt", "") for output in pictures(json.loads(path.read_text()))
    ]
    assert found, "nothing would be checked"
    assert min(map(len, found)) > 10, "store the notebook again: a picture has no words"
