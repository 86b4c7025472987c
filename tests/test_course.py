"""Running the course: every notebook, its parameters, failures told by notebook and cell, and copies to work on."""

import subprocess

import nbformat
import pytest

from edm_lesson import course


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A small course: 00 has a parameter and asserts on it, 01 always works."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, *sources in [
        ("00_first", "steps = 3", "assert steps == 3, 'steps were changed'"),
        ("01_second", "print('fine')"),
    ]:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        cells[0].metadata["tags"] = ["parameters"] if name.startswith("00") else []
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")
    (folder / "notation.md").write_text("sigma: noise level")
    monkeypatch.setattr(course, "NOTEBOOKS", folder)
    return folder


def test_every_notebook_runs_and_its_copy_is_kept(notebooks, tmp_path, capsys):
    course.run_course(out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"00_first.ipynb", "01_second.ipynb"}
    assert nbformat.read(tmp_path / "out" / "01_second.ipynb", 4).cells[0].outputs[0].text == "fine\n"
    assert "00_first.ipynb" in capsys.readouterr().out


def test_a_failure_names_notebook_and_cell_and_the_others_still_run(notebooks, tmp_path, capsys):
    with pytest.raises(
        course.CourseError, match=r"(?s)1 of 2.*00_first.ipynb: cell 2 .*AssertionError: steps were changed"
    ):
        course.run_course(out=tmp_path / "out", parameters={"steps": "4"})
    assert (tmp_path / "out" / "00_first.ipynb").exists()
    assert "01_second.ipynb" in capsys.readouterr().out


def test_unknown_parameters_and_notebooks_are_refused_before_anything_runs(notebooks, tmp_path):
    with pytest.raises(course.CourseError, match="No notebook has a parameter 'stepz'; there are steps"):
        course.run_course(out=tmp_path / "out", parameters={"stepz": 4})
    with pytest.raises(course.CourseError, match="There is no notebook 07; there are 00, 01"):
        course.run_course("07", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_storing_keeps_a_failing_notebook_as_it_was(notebooks):
    path = notebooks / "00_first.ipynb"
    path.write_text(path.read_text().replace("steps == 3", "steps == 5"))
    before = path.read_text()
    with pytest.raises(course.CourseError, match=r"00_first\.ipynb is left as it was"):
        course.store_notebooks("00")
    assert path.read_text() == before
    course.store_notebooks("01")
    assert nbformat.read(notebooks / "01_second.ipynb", 4).cells[0].execution_count == 1


def test_the_lab_copies_what_is_missing_and_overwrites_nothing(notebooks, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        subprocess, "run", lambda command: started.append(command) or subprocess.CompletedProcess(command, 0)
    )
    mine = tmp_path / "lab"
    mine.mkdir()
    (mine / "00_first.ipynb").write_text("my notes")
    assert course.open_lab(mine, ["--port", "9999"]) == 0
    assert (mine / "00_first.ipynb").read_text() == "my notes"
    assert (mine / "01_second.ipynb").read_bytes() == (notebooks / "01_second.ipynb").read_bytes()
    assert (mine / "notation.md").read_text() == "sigma: noise level"
    (mine / "notation.md").write_text("my notation")
    course.open_lab(mine)
    assert (mine / "notation.md").read_text() == "my notation"
    assert started[0][1:3] == ["-m", "jupyterlab"]
    assert started[0][-2:] == ["--port", "9999"]


def test_a_slider_is_stored_with_its_picture_and_nothing_is_echoed_to_the_kernel(notebooks, monkeypatch):
    from nbclient.output_widget import OutputWidget

    sent = []
    monkeypatch.setattr(OutputWidget, "send", lambda self, message: sent.append(message))
    path = notebooks / "01_second.ipynb"
    notebook = nbformat.read(path, 4)
    slider = "from ipywidgets import interact\n_ = interact(lambda sigma=2: print(f'sigma is {sigma}'))"
    notebook.cells[0].source = slider
    nbformat.write(notebook, path)
    course.store_notebooks("01")
    state = nbformat.read(path, 4).metadata.widgets["application/vnd.jupyter.widget-state+json"].state
    texts = [output.text for model in state.values() for output in model.state.get("outputs", [])]
    assert texts == ["sigma is 2\n"]
    assert not sent, "the reply to the cell can get lost"
