"""The stored notebooks are fit to be read and to be compared (`moving_sliders` moves what they hold)."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from edm_lesson.course import widget_models

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TAGS = {"parameters", "nbval-ignore-output"}


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
