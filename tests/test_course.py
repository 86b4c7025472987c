"""Running the course: every notebook, its parameters, failures told by notebook and cell, and copies to work on."""

import ast
import os
import subprocess
import time
from itertools import chain

import nbformat
import pytest

from edm_lesson.course import run as course


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A small course: 00 has two parameters and asserts on one, 01 always works."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, *sources in [
        ("00_first", "steps = 3\nsetting = 'seconds'", "assert steps == 3, 'steps were changed'"),
        ("01_second", "print('fine')"),
    ]:
        cells = [nbformat.v4.new_markdown_cell(f"# {name}"), *map(nbformat.v4.new_code_cell, sources)]
        cells[1].metadata["tags"] = ["parameters"] if name.startswith("00") else []
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")
    (folder / "notation.md").write_text("sigma: noise level")
    monkeypatch.setattr(course, "NOTEBOOKS", folder)
    return folder


def test_every_notebook_runs_and_its_copy_is_kept(notebooks, tmp_path, capsys):
    course.run_course(out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"00_first.ipynb", "01_second.ipynb"}
    assert nbformat.read(tmp_path / "out" / "01_second.ipynb", 4).cells[1].outputs[0].text == "fine\n"
    assert "00_first.ipynb" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_names_notebook_and_cell_shows_the_traceback_and_the_others_still_run(
    notebooks, tmp_path, capsys, jobs
):
    with pytest.raises(
        course.LessonError, match=r"(?s)1 of 2.*00_first.ipynb: cell 3 .*AssertionError: steps were changed"
    ) as caught:
        course.run_course(out=tmp_path / "out", parameters={"steps": "4"}, jobs=jobs)
    kept = tmp_path / "out" / "00_first.ipynb"
    assert str(kept) in str(caught.value)
    assert kept.exists()
    said = capsys.readouterr().out
    assert "Traceback (most recent call last)" in said
    assert "----> 1 assert steps == 3" in said
    assert "\x1b" not in said, "colours of a terminal"
    table = said.partition("seconds  result")[2].splitlines()[1:3]
    assert [(line.split()[0], line.split()[-1]) for line in table] == [
        ("00_first.ipynb", "FAILED"), ("01_second.ipynb", "ok"),
    ]  # fmt: skip


def test_a_slider_whose_function_fails_fails_the_course(notebooks, tmp_path, request):
    path = notebooks / "01_second.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[1].source = "from ipywidgets import interact\n_ = interact(lambda sigma=2: 1 / 0)"
    nbformat.write(notebook, path)
    with pytest.raises(course.LessonError, match=r"01_second.ipynb: a slider's function raised ZeroDivisionError"):
        course.run_course("01", tmp_path / "out")
    tasks = request.getfixturevalue("planned")
    course.run_course("01", tmp_path / "out")
    assert tasks, "it doesn't count as done"


@pytest.fixture
def planned(monkeypatch):
    """Which notebooks would be executed, with which parameters: none is, from here on."""
    tasks = []

    def note(task):
        tasks.append((task[0].name[:2], task[2]))
        return task[0].name, 1.0, None

    monkeypatch.setattr(course, "_execute", note)
    return tasks


def test_a_course_goes_on_where_it_stopped(notebooks, tmp_path, capsys, request):
    out = tmp_path / "out"
    with pytest.raises(course.LessonError):
        course.run_course(out=out, parameters={"steps": 4})
    tasks = request.getfixturevalue("planned")

    def numbers(**options):
        tasks.clear()
        course.run_course(out=out, **options)
        return [number for number, _ in tasks]

    capsys.readouterr()
    assert numbers(parameters={"steps": 4}) == ["00"], "what failed is run again"
    said = capsys.readouterr().out
    assert "01_second.ipynb was run already" in said
    assert "done before" in said
    assert numbers(only="01", parameters={}) == []
    assert numbers(only="01", again=True) == ["01"]

    path, copy = notebooks / "01_second.ipynb", out / "01_second.ipynb"
    before, made = path.read_text(), copy.read_text()
    path.write_text(before.replace("'fine'", "'better'"))
    assert numbers(only="01") == ["01"], "the notebook was changed"
    path.write_text(before)
    assert numbers(only="01") == []
    copy.write_text(made.replace('"status": "completed"', '"status": "pending"', 1))
    assert numbers(only="01") == ["01"], "its kernel died"
    copy.write_text(made[:-100])
    assert numbers(only="01") == ["01"], "the copy is damaged"
    copy.write_text(made)
    os.utime(copy, (time.time() - 1e9,) * 2)
    assert numbers(only="01") == ["01"], "the package is newer than the copy"


def test_parameters_that_were_changed_are_run_again(notebooks, tmp_path, request):
    course.run_course("00", tmp_path / "out", {"steps": "3"})
    tasks = request.getfixturevalue("planned")
    for parameters in ({"steps": 3}, {"steps": 3.5}, {}):
        course.run_course("00", tmp_path / "out", parameters)
    assert [chosen.get("steps") for _, chosen in tasks] == [3.5, None]


def test_a_setting_says_how_long_to_train_and_a_parameter_overrules_it(notebooks, tmp_path, planned):
    for setting, parameters in [("ci", {}), ("cpu", {}), ("t4", {}), ("t4", {"setting": "none"})]:
        course.run_course(out=tmp_path / "out", setting=setting, parameters=parameters)
    assert [chosen["setting"] for number, chosen in planned if number == "00"] == [
        "seconds", "minutes", "full", "none",
    ]  # fmt: skip
    assert [chosen for number, chosen in planned if number == "01"] == [{}] * 4
    with pytest.raises(ValueError, match="setting is 'gpu'; it must be one of ci, cpu, t4"):
        course.run_course(out=tmp_path / "out", setting="gpu")
    with pytest.raises(ValueError, match="jobs is 0"):
        course.run_course(out=tmp_path / "out", jobs=0)


def test_the_notebooks_know_the_settings_and_are_stored_with_the_shortest():
    for path in course.find_notebooks():
        (cell,) = [cell for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", [])]
        values = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
        if "setting" in values:
            assert values["setting"] == course.SETTINGS["ci"]["setting"]
            for name in chain.from_iterable(setting.values() for setting in course.SETTINGS.values()):
                assert f'"{name}"' in cell.source, f"{path.name} doesn't say what {name} does"


def test_unknown_parameters_and_notebooks_are_refused_before_anything_runs(notebooks, tmp_path):
    with pytest.raises(course.LessonError, match="No notebook has a parameter 'stepz'; there are setting, steps"):
        course.run_course(out=tmp_path / "out", parameters={"stepz": 4})
    with pytest.raises(course.LessonError, match="There is no notebook 07; there are 00, 01"):
        course.run_course("07", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_storing_keeps_a_failing_notebook_as_it_was(notebooks):
    path = notebooks / "00_first.ipynb"
    path.write_text(path.read_text().replace("steps == 3", "steps == 5"))
    before = path.read_text()
    with pytest.raises(course.LessonError, match=r"00_first\.ipynb is left as it was"):
        course.store_notebooks("00")
    assert path.read_text() == before
    course.store_notebooks("01")
    stored = nbformat.read(notebooks / "01_second.ipynb", 4)
    assert [cell.get("execution_count") for cell in stored.cells] == [None, 1, 2]
    assert stored.cells[2].outputs[0].text == "fine\n"


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
    notebook.cells[1].source = slider
    nbformat.write(notebook, path)
    course.store_notebooks("01")
    state = nbformat.read(path, 4).metadata.widgets[course.WIDGET_STATE].state
    texts = [output.text for model in state.values() for output in model.state.get("outputs", [])]
    assert texts == ["sigma is 2\n"]
    assert not sent, "the reply to the cell can get lost"


def test_who_reads_a_stored_notebook_as_text_learns_what_sliders_are_for_and_how_a_bar_ended(notebooks):
    path = notebooks / "01_second.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[1].source = "\n".join(
        [
            "from ipywidgets import interact",
            "from tqdm.notebook import tqdm",
            "_ = interact(lambda sigma=2, rho=7.0: None)",
            "for _ in tqdm(range(3), unit='image'):",
            "    pass",
        ]
    )
    nbformat.write(notebook, path)
    course.store_notebooks("01")
    slider, bar = [output.data["text/plain"] for output in nbformat.read(path, 4).cells[-1].outputs]
    assert slider == "Run the notebook to move sigma, rho."
    assert bar.startswith("100% 3/3 [00:00<00:00")
