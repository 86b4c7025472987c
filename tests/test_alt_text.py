"""Figures say in words what they show, and IPython stores it beside the picture."""

import gc
import json

import pytest
import torch
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats

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
        (
            lambda: plots.curves({"Heun": ([7, 15, 35], [[2, 4], [2, 2], [1, 1]])}, "nfe", ""),
            "Heun: from 3 to 1. Across",
        ),
        (lambda: plots.dot_plot({"EMA": [2.0, 3.0]}, "ratio"), "EMA: 2 marks from 2 to 3."),
        (
            lambda: plots.transformed(images[0], images[1], {"scale": 1.5, "turn": -2.5}),
            "2 images: before; after. Chart: scale: 1.5; turn: -2.5. Across: label, -2 to 2.",
        ),
        (lambda: plots.heatmap(torch.eye(2), "x", "y"), "Chart: a map of values from 0 to 1."),
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
    words = [describe(plots.curves({"error": (ramp, height * ramp)}, "σ", "error")) for height in (0.1, 10.0)]
    assert words[0] != words[1]


@pytest.fixture
def shell():
    """IPython as in a kernel, without pyplot; what it displays is in `display_pub.outputs`."""
    shell = InteractiveShell.instance()
    shell.display_pub, before = CapturingDisplayPublisher(), shell.display_pub
    yield shell
    shell.display_pub = before
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("pyplot", [False, True])
def test_ipython_stores_the_words_where_pages_look_for_them(shell, pyplot):
    if pyplot:  # as in the kernel of a reader who imports it
        select_figure_formats(shell, {"png"})
    shell.run_cell("import torch; from edm_lesson import plots; display(plots.image_grid(torch.zeros(2, 1, 4, 4)))")
    (shown,) = shell.display_pub.outputs
    assert shown["metadata"] == {"image/png": {"alt": "2 images in rows of 2."}}
    assert shown["data"]["text/plain"].startswith("<Figure size ")
    assert len(shown["data"]["image/png"]) > 100


def test_a_new_figure_leaves_the_reader_s_results_alone(shell):
    """`Out`, `_2` and the garbage that is theirs: what IPython and Python keep is their business."""
    shell.run_cell("from edm_lesson import plots", store_history=True)
    shell.run_cell("fig = plots.steps({'a': [2, 1]}); fig", store_history=True)
    collected = []
    gc.callbacks.append(notice := lambda phase, info: collected.append(info["generation"]))
    try:
        for _ in range(4):
            shell.run_cell("plots.steps({'a': [2, 1]})", store_history=True)
    finally:
        gc.callbacks.remove(notice)
    assert shell.user_ns["Out"][2] is shell.user_ns["_2"] is shell.user_ns["fig"]
    assert set(shell.user_ns["Out"]) == {2, 3, 4, 5, 6}
    assert collected.count(2) <= 2, "a full collection for every figure"


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
