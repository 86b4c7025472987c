"""The stored notebooks are fit to be read and to be compared, and their sliders do something."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from edm_lesson.course import patch_nbclient, widget_models

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TAGS = {"parameters", "nbval-ignore-output"}
SHORT = {"train_images": 3200}  # parameters that make a notebook quick; its results are then not the stored ones


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS, "nothing would be checked"


def test_it_is_stored_from_one_clean_run(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert notebook.metadata.kernelspec.name == "python3"
    kinds = {output.output_type for cell in code_cells(notebook) for output in cell.outputs}
    assert "error" not in kinds
    names = {
        output.get("name")
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "nbval-ignore-output" not in tags(cell)
    }
    assert "stderr" not in names, "a compared cell wrote to stderr"


def tags(cell):
    return set(cell.metadata.get("tags", []))


def test_it_shows_pictures_and_is_small(notebook, request):
    pictures = [
        output for cell in code_cells(notebook) for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 5
    path = request.node.callspec.params["notebook"]
    assert path.stat().st_size < 1_000_000
    assert not re.search(r"/(root|work|tmp|home)/", path.read_text()), "it holds a path of somebody's machine"


def test_it_has_one_parameters_cell_with_literals_only(notebook):
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        ast.literal_eval(statement.value)


def test_only_training_and_sliders_are_not_compared(notebook):
    for cell in code_cells(notebook):
        assert tags(cell) <= TAGS, tags(cell)
        if "nbval-ignore-output" in tags(cell):
            assert "interact(" in cell.source or "train(" in cell.source, cell.source


def test_its_headings_are_in_order(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    depths = [len(marks) for marks in re.findall(r"^(#+) ", text, flags=re.MULTILINE)]
    assert depths[0] == 1
    assert depths.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(depths)), depths


def test_its_widgets_hold_their_state_and_no_error(notebook):
    states = widget_models(notebook)
    assert states or not any("interact(" in cell.source for cell in code_cells(notebook))
    for state in states.values():
        assert all(output["output_type"] != "error" for output in state["state"].get("outputs", []))


def test_its_sliders_change_their_pictures(notebook):
    """Each control at its smallest, default and largest setting: three different figures, one live picture."""
    if not any("interact(" in cell.source for cell in code_cells(notebook)):
        pytest.skip("no sliders")
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if "parameters" in tags(cell):
            chosen = {target.id for statement in ast.parse(cell.source).body for target in statement.targets}
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in SHORT.items() if name in chosen)
        elif cell.cell_type == "code" and "interact(" in cell.source:
            assert "_ = interact(" in cell.source, "the slider's cell shows more than the slider"
            cell.source = cell.source.replace("_ = interact(", "moved = interact(")
            cells += [nbformat.v4.new_code_cell(COMPARE)]
            cells += [nbformat.v4.new_code_cell(MOVE.format(number=number)) for number in range(MOST_CONTROLS)]
    notebook.cells = cells

    pictures, moves = {}, []

    def compare(cell, **_):
        now = {model: state["outputs"] for model, state in client.widget_state.items() if "outputs" in state}
        if cell.source.startswith("# move") and cell.outputs:
            moves.append(
                (cell.outputs[0]["text"].strip(), [model for model in now if now[model] != pictures[model]], now)
            )
        pictures.update(now)

    patch_nbclient()
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": ROOT / "notebooks"}}
    )
    client.on_cell_executed = compare
    client.execute()
    assert moves
    for control, changed, now in moves:
        assert len(changed) == 1, f"moving {control} changed {len(changed)} pictures"
        kinds = [output["output_type"] for output in now[changed[0]]]
        assert kinds == ["display_data"], f"after moving {control} there is {kinds} instead of one picture"


MOST_CONTROLS = 4
COMPARE = """# the draw function itself, whose exceptions nothing swallows
import io

from ipywidgets import FloatLogSlider
from matplotlib.figure import Figure

draw, defaults = moved.widget.f, {control._kwarg: control.value for control in moved.widget.kwargs_widgets}


def picture(**settings):
    figure = draw(**settings)
    assert isinstance(figure, Figure), f"{draw.__name__}({settings}) returns {type(figure).__name__}, not a figure"
    figure.savefig(buffer := io.BytesIO(), format="png")
    return buffer.getvalue()


for control in moved.widget.kwargs_widgets:
    ends = [value for _, value in control._options_full] if hasattr(control, "options") else (
        [False, True] if isinstance(control.value, bool) else [control.min, control.max])
    if isinstance(control, FloatLogSlider):
        ends = [control.base**end for end in ends]
    settings = sorted({control.value, ends[0], ends[-1]})
    drawn = {picture(**defaults | {control._kwarg: setting}) for setting in settings}
    assert len(drawn) == len(settings), f"{draw.__name__}: {control._kwarg} at {settings} gives {len(drawn)} pictures"
"""
MOVE = """# move control {number}, if there is one
from ipywidgets import FloatLogSlider

controls = moved.widget.children[:-1]
assert len(controls) <= 4
if {number} < len(controls):
    control = controls[{number}]
    if hasattr(control, "options"):
        control.index = len(control.options) - 1 if control.index == 0 else 0
    elif isinstance(control.value, bool):
        control.value = not control.value
    else:
        top = control.base**control.max if isinstance(control, FloatLogSlider) else control.max
        control.value = top
    print(control.description)
"""
