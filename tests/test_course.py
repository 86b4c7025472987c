"""Running the course: every notebook, its parameters, failures told by notebook and cell, and copies to work on."""

import ast
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from forks import forked
from nbclient import NotebookClient

from edm_lesson import LessonError, course
from edm_lesson.course import lab, store
from edm_lesson.course import run as runner
from edm_lesson.course.kernel import ThisPython, kernel_environment


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
    monkeypatch.setattr(lab, "NOTEBOOKS", folder)
    return folder


def test_every_notebook_runs_and_its_copy_is_kept(notebooks, tmp_path, capsys):
    course.run_course(out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"00_first.ipynb", "01_second.ipynb"}
    assert nbformat.read(tmp_path / "out" / "01_second.ipynb", 4).cells[1].outputs[0].text == "fine\n"
    assert "00_first.ipynb" in capsys.readouterr().out


def test_a_failure_names_notebook_and_cell_shows_the_traceback_and_the_others_still_run(notebooks, tmp_path, capsys):
    with pytest.raises(
        LessonError, match=r"(?s)1 of 2.*00_first.ipynb: cell 3 .*AssertionError: steps were changed"
    ) as caught:
        course.run_course(out=tmp_path / "out", parameters={"steps": "4"})
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


def test_a_slider_whose_function_fails_fails_the_course(notebooks, tmp_path):
    rewrite(notebooks / "01_second.ipynb", "from ipywidgets import interact\n_ = interact(lambda sigma=2: 1 / 0)")
    with pytest.raises(LessonError, match=r"01_second.ipynb: a slider's function raised ZeroDivisionError"):
        course.run_course("01", tmp_path / "out")


def rewrite(path, source):
    """Give the notebook at `path` another first code cell."""
    notebook = nbformat.read(path, 4)
    notebook.cells[1].source = source
    nbformat.write(notebook, path)


def test_a_setting_says_how_long_to_train_and_a_parameter_overrules_it(notebooks, tmp_path, monkeypatch, run):
    planned = []
    monkeypatch.setattr(runner, "_execute", lambda path, copy, chosen: planned.append((path.name[:2], chosen)))
    out = ["--out", tmp_path / "out"]
    monkeypatch.setattr(runner, "written", lambda path: contextlib.nullcontext(path))
    for arguments in ([], ["--setting", "minutes"], ["--setting", "full", "-p", "setting=minutes", "-p", "steps=35"]):
        assert run("course", *out, *arguments)[0] == 0
    assert [chosen for number, chosen in planned if number == "00"] == [
        {"setting": "seconds"}, {"setting": "minutes"}, {"setting": "minutes", "steps": 35},
    ]  # fmt: skip
    assert [chosen for number, chosen in planned if number == "01"] == [{}] * 3
    code, _, said = run("course", *out, "--setting", "gpu")
    assert code == 2
    assert all(word in said for word in ("'gpu'", "'seconds'", "'minutes'", "'full'"))
    assert "-p is 'steps'; write NAME=VALUE" in run("course", *out, "-p", "steps")[2]


@pytest.mark.parametrize("text", ["[", "a: b: c", "${x", "&a [*a]", "!!python/name:os.system", "", "many", "3.5"])
def test_a_value_of_another_kind_or_no_yaml_is_told_in_a_sentence_before_anything_runs(notebooks, tmp_path, run, text):
    code, _, said = run("course", "--out", tmp_path / "out", "-p", f"steps={text}")
    assert said == f"edm-lesson: -p steps is {text!r}; it must be of the kind of 3, which the notebook has."
    assert code
    said = run("course", "--out", tmp_path / "out", "-p", f"setting={text}")[2]
    assert said == f"edm-lesson: setting is {text!r}; it must be one of seconds, minutes, full."
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("typed", "reaches"), [("2024", "2024"), ("a [b", "a [b"), ("", "")])
def test_text_is_typed_without_quotes(typed, reaches):
    assert runner._read("folder", typed, "") == reaches


def test_learners_copies_and_the_course_itself_are_not_replaced(notebooks, tmp_path, run):
    before = (notebooks / "00_first.ipynb").read_bytes()
    assert "holds notebooks to read or to work on" in run("course", "--out", notebooks)[2]
    assert (notebooks / "00_first.ipynb").read_bytes() == before


def test_what_stood_there_stays_until_a_notebook_has_been_executed(notebooks, tmp_path, monkeypatch, run):
    rewrite(notebooks / "01_second.ipynb", "import pathlib\nprint(pathlib.Path('../out/01_second.ipynb').read_text())")
    old = tmp_path / "out" / "01_second.ipynb"
    old.parent.mkdir()
    old.write_text("whole")
    course.run_course("01", old.parent)
    assert nbformat.read(old, 4).cells[1].outputs[0].text == "whole\n"
    assert [path.name for path in old.parent.iterdir()] == ["01_second.ipynb"]
    old.write_text("whole")

    def full(text, path):
        Path(path).write_text("cut off")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papermill.engines.write_ipynb", full)
    said = run("course", "--only", "01", "--out", old.parent)[2]
    assert "Can't write" in said
    assert "No space left" in said
    assert [path.read_text() for path in old.parent.iterdir()] == ["whole"]


def test_the_notebooks_know_the_settings_and_are_stored_with_the_shortest():
    for path in course.find_notebooks():
        (cell,) = [cell for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", [])]
        values = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
        if "setting" in values:
            assert values["setting"] == "seconds"
            for name in ("seconds", "minutes", "full"):
                assert f'"{name}"' in cell.source, f"{path.name} doesn't say what {name} does"


def test_numbers_that_a_parameter_must_keep_to_are_asserted_with_words_where_they_are_first_used():
    limits = 0
    for path in course.find_notebooks():
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        (given,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        for name, low in re.findall(
            r"(?m)^(\w+) = \d.*?(?:at least )?\b([\d_]+)(?: or more| to [\d_]+)?$", given.source
        ):
            limits += 1
            first = next(cell.source for cell in cells if cell is not given and name in cell.source)
            check = first[: first.index(name) + len(name)].splitlines()[-1]
            assert check.startswith("assert "), f"{path.name} uses {name} before it looks at it"
            assert re.search(rf"(?m)^{re.escape(check)}.*{low}|^assert {low} <= {name}", first)
    assert limits >= 5


@pytest.fixture
def another_python(tmp_path, monkeypatch):
    """A kernel called `python3` that starts nothing; whether it was started shows in the file that is returned."""
    proof, kernel = tmp_path / "proof", tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = ["sh", "-c", f"echo started > {proof}; exit 1"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return proof


LOOK = "import os, sys\nprint(sys.executable, os.environ['OMP_WAIT_POLICY'])"


def test_the_kernel_is_of_the_python_that_runs_and_its_threads_wait_asleep(
    notebooks, tmp_path, monkeypatch, another_python
):
    rewrite(notebooks / "01_second.ipynb", LOOK)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    course.run_course("01", tmp_path / "out")
    course.store_notebooks("01")
    for folder in (tmp_path / "out", notebooks):
        assert nbformat.read(folder / "01_second.ipynb", 4).cells[-1].outputs[0].text == f"{sys.executable} passive\n"
    assert not another_python.exists()
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    course.run_course("01", tmp_path / "out")
    executed = nbformat.read(tmp_path / "out" / "01_second.ipynb", 4)
    assert executed.cells[-1].outputs[0].text.endswith(" active\n"), "what the user sets, stays"


def test_where_there_is_no_home_jupyter_gets_one_that_it_can_write_to(tmp_path, monkeypatch):
    for home, kept in [(tmp_path, True), (tmp_path / "none", False)]:
        monkeypatch.setenv("HOME", str(home))
        given = kernel_environment()["HOME"]
        assert (given == str(home)) == kept
        assert os.access(given, os.W_OK)


def test_the_lab_offers_the_python_that_runs_and_the_kernels_of_others(another_python):
    other = another_python.parent / "jupyter" / "kernels" / "other"
    other.mkdir()
    (other / "kernel.json").write_text('{"argv": ["other"], "display_name": "Other", "language": "x"}')
    offered = {name: kernel["spec"]["argv"][0] for name, kernel in ThisPython().get_all_specs().items()}
    assert offered["python3"] == sys.executable
    assert offered["other"] == "other"


def test_from_an_installed_package_nothing_is_written_beside_the_notebooks(notebooks, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "IN_REPOSITORY", False)
    rewrite(notebooks / "01_second.ipynb", "import os\nprint(os.path.abspath('../runs'))")
    monkeypatch.chdir(tmp_path)
    course.run_course("01")
    executed = nbformat.read(tmp_path / "runs" / "course" / "01_second.ipynb", 4)
    assert executed.cells[1].outputs[0].text == f"{tmp_path / 'runs'}\n"


def test_unknown_parameters_and_notebooks_are_refused_before_anything_runs(notebooks, tmp_path):
    with pytest.raises(LessonError, match="No notebook has a parameter 'stepz'; there are setting, steps"):
        course.run_course(out=tmp_path / "out", parameters={"stepz": 4})
    with pytest.raises(LessonError, match="There is no notebook 07; there are 00, 01"):
        course.run_course("07", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_storing_keeps_a_failing_notebook_as_it_was(notebooks, capsys):
    path = notebooks / "00_first.ipynb"
    path.write_text(path.read_text().replace("steps == 3", "steps == 5"))
    before = path.read_text()
    with pytest.raises(LessonError, match=r"00_first\.ipynb is left as it was: AssertionError: steps were changed$"):
        course.store_notebooks("00")
    assert "Traceback (most recent call last)" in capsys.readouterr().out
    assert path.read_text() == before
    course.store_notebooks("01")
    stored = nbformat.read(notebooks / "01_second.ipynb", 4)
    assert [cell.get("execution_count") for cell in stored.cells] == [None, 1, 2]
    assert stored.cells[2].outputs[0].text == "fine\n"


def test_the_lab_copies_what_is_missing_without_its_outputs_and_overwrites_nothing(notebooks, tmp_path, monkeypatch):
    from jupyterlab.labapp import LabApp

    started = []
    monkeypatch.setattr(LabApp, "launch_instance", started.append)
    monkeypatch.setattr(os, "environ", dict(os.environ, OMP_WAIT_POLICY="active"))
    mine = tmp_path / "lab"
    mine.mkdir()
    (mine / "00_first.ipynb").write_text("my notes")
    course.store_notebooks("01")
    course.open_lab(mine, ["--port", "9999"])
    assert (mine / "00_first.ipynb").read_text() == "my notes"
    copied, stored = (nbformat.read(folder / "01_second.ipynb", 4) for folder in (mine, notebooks))
    assert [cell.source for cell in copied.cells] == [cell.source for cell in stored.cells]
    assert stored.cells[-1].outputs
    assert copied.cells[-1].outputs == []
    assert {cell.execution_count for cell in copied.cells[1:]} == {None}
    assert (mine / "notation.md").read_text() == "sigma: noise level"
    (mine / "notation.md").write_text("my notation")
    course.open_lab(mine)
    assert (mine / "notation.md").read_text() == "my notation"
    assert started[0][-2:] == ["--port", "9999"]
    assert os.environ["OMP_WAIT_POLICY"] == "active", "what the user sets, stays"


def opened_lab(folder, port, environment):
    """For a process of its own: JupyterLab on the course in `folder`, with all that it writes there."""
    os.environ.update(environment, HOME=str(folder))
    lab.NOTEBOOKS = folder / "notebooks"
    options = ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    course.open_lab(folder / "lab", ["--allow-root", "--no-browser", f"--port={port}", *options])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes as Linux lists them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_lab_starts_the_python_that_runs_and_ends_with_it_and_so_does_its_kernel(
    notebooks, tmp_path, monkeypatch, another_python, number
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ask(what, data=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{what}", data)
        return json.load(urllib.request.urlopen(request, timeout=10))

    with forked((opened_lab, tmp_path, port, dict(os.environ))) as (process,):
        until = time.monotonic() + 60
        while time.monotonic() < until and process.is_alive():
            try:
                ask("status")
                break
            except OSError:
                time.sleep(0.1)
        ask("kernels", b'{"name": "python3"}')
        (kernel,) = children_of(process.pid)
        assert Path(f"/proc/{kernel}/cmdline").read_text().split("\0")[0] == sys.executable
        os.kill(process.pid, number)
        process.join(20)
        assert not process.is_alive()
    while is_alive(kernel) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_alive(kernel)
    assert not another_python.exists()


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SLIDER = """from ipywidgets import interact
_ = interact(lambda sigma=2, rho=7.0: print(f'sigma is {sigma}'))"""
BAR = """from tqdm.notebook import tqdm
with tqdm(total=3, unit='img') as bar:
    for _ in range(3):
        bar.update()
    bar.set_postfix(loss=0.25)"""


def test_a_slider_is_stored_with_its_picture_and_nothing_is_echoed_to_the_kernel(notebooks, monkeypatch):
    from nbclient.output_widget import OutputWidget

    sent = []
    monkeypatch.setattr(OutputWidget, "send", lambda self, message: sent.append(message))
    rewrite(path := notebooks / "01_second.ipynb", SLIDER)
    course.store_notebooks("01")
    texts = [
        output.text
        for model in course.widget_models(nbformat.read(path, 4)).values()
        for output in model.state.get("outputs", [])
    ]
    assert texts == ["sigma is 2\n"]
    assert not sent, "the reply to the cell can get lost"
    plain = NotebookClient(nbformat.read(path, 4))
    plain.execute()
    assert sent, "other clients are left as they are"


def test_who_reads_a_stored_notebook_as_text_learns_what_sliders_are_for_and_how_a_bar_ended(notebooks):
    rewrite(path := notebooks / "01_second.ipynb", f"{SLIDER}\n{BAR}")
    course.store_notebooks("01")
    slider, bar = [output.data["text/plain"] for output in nbformat.read(path, 4).cells[-1].outputs]
    assert slider == "Run the notebook to move sigma, rho."
    assert bar == "100% 3/3 loss=0.25"


def test_text_that_a_kernel_sent_in_pieces_is_stored_as_one():
    said = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in ["oa", "ob", "eb", "oa", "oa"]]
    cell = nbformat.v4.new_code_cell(outputs=said)
    (stored,) = store.steady(nbformat.v4.new_notebook(cells=[cell])).cells
    assert [(output.name, output.text) for output in stored.outputs] == [("o", "ab"), ("e", "b"), ("o", "aa")]


def test_storing_twice_changes_nothing(notebooks):
    rewrite(path := notebooks / "01_second.ipynb", f"{SLIDER}\n{BAR}\n{BAR.partition('    bar.set')[0]}")
    course.store_notebooks("01")
    once = path.read_text()
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert re.findall(r'"model_id": "(\w+)"', once), "nothing would be checked"
    assert set(re.findall(r'"(?:IPY_MODEL_|model_id": ")(\w+)"', once)) <= set(store.widget_models(notebook))
    course.store_notebooks("01")
    assert path.read_text() == once
