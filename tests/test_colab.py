"""A notebook alone, as on Colab: it fetches the course at its version, installs what is missing, and runs."""

import copy
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from edm_lesson.course import colab
from edm_lesson.course import run as course

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS, REF = PROJECT["urls"]["Repository"], f"v{PROJECT['version']}"
FOLDER = f"edm_lesson-{REF}"


@pytest.mark.parametrize("path", course.find_notebooks(), ids=lambda path: path.stem)
def test_every_notebook_has_the_link_the_cell_and_the_t4_that_pyproject_asks_for(path):
    notebook = nbformat.read(path, as_version=4)
    fresh = copy.deepcopy(notebook)
    colab.add_colab(fresh, path.name)
    assert fresh == notebook, f"{path.name} is out of date; run: edm-lesson course --colab"
    (link,) = re.findall(r"^\[Open in Colab\]\((.*)\)$", notebook.cells[0].source, flags=re.MULTILINE)
    owner = ADDRESS.removeprefix("https://github.com/")
    assert link == f"https://colab.research.google.com/github/{owner}/blob/{REF}/notebooks/{path.name}"
    cell = notebook.cells[1].source
    assert ADDRESS in cell
    assert f"--branch={REF}" in cell
    assert not re.search("torch|numpy", cell)
    assert len(cell.splitlines()) <= 16
    assert (notebook.metadata.accelerator, notebook.metadata.colab.gpuType) == ("GPU", "T4")


@pytest.fixture
def executed():
    """A notebook as it is stored: a title, two executed cells, an output that knows its number, one that doesn't."""
    cells = [nbformat.v4.new_markdown_cell("# A title\n\nText."), *map(nbformat.v4.new_code_cell, ("1", "print(2)"))]
    for count, cell in enumerate(cells[1:], 1):
        cell.execution_count = count
    cells[1].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=1)]
    cells[2].outputs = [nbformat.v4.new_output("stream", text="2\n")]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_notebook_that_gets_the_cell_still_looks_executed_from_top_to_bottom(executed):
    colab.add_colab(executed, "00_a.ipynb")
    nbformat.validate(executed)
    assert executed.cells[0].source.splitlines()[::2] == [
        "# A title",
        executed.cells[0].source.splitlines()[2],
        "Text.",
    ]
    assert [cell.source for cell in executed.cells[2:]] == ["1", "print(2)"]
    assert [cell.execution_count for cell in executed.cells[1:]] == [1, 2, 3]
    assert executed.cells[2].outputs[0].execution_count == 2
    once = copy.deepcopy(executed)
    colab.add_colab(executed, "00_a.ipynb")
    assert executed == once


def test_another_address_or_version_reaches_link_and_cell_and_nothing_else(executed, monkeypatch):
    colab.add_colab(executed, "00_a.ipynb")
    before = copy.deepcopy(executed)
    moved = {**PROJECT, "urls": {"Repository": "https://github.com/someone/else"}, "version": "9.9"}
    monkeypatch.setattr(colab, "project", lambda: moved)
    colab.add_colab(executed, "00_a.ipynb")
    assert "github/someone/else/blob/v9.9/notebooks/00_a.ipynb" in executed.cells[0].source
    assert "https://github.com/someone/else" in executed.cells[1].source
    assert not any(old in cell.source for old in (ADDRESS, REF) for cell in executed.cells)
    assert executed.cells[2:] == before.cells[2:]
    monkeypatch.undo()
    colab.add_colab(executed, "00_a.ipynb")
    assert executed == before


def test_a_notebook_without_results_gets_the_cell_without_one_and_one_without_a_title_is_refused(executed):
    for cell in executed.cells[1:]:
        cell.execution_count, cell.outputs = None, []
    colab.add_colab(executed, "00_a.ipynb")
    assert [cell.execution_count for cell in executed.cells[1:]] == [None] * 3
    del executed.cells[0]
    with pytest.raises(ValueError, match=r"00_a\.ipynb doesn't begin with a title"):
        colab.add_colab(executed, "00_a.ipynb")


def test_one_command_brings_all_notebooks_up_to_date_without_executing_them(run, tmp_path, monkeypatch, executed):
    monkeypatch.setattr(course, "NOTEBOOKS", tmp_path)
    nbformat.write(executed, tmp_path / "00_a.ipynb")
    code, said, error = run("course", "--colab")
    assert code == 0, error
    assert "00_a.ipynb brought up to date" in said
    assert nbformat.read(tmp_path / "00_a.ipynb", 4).cells[3].outputs[0].text == "2\n"
    assert run("course", "--colab")[1] == ""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A bare repository of this folder as it is now, tagged with its version."""
    path = tmp_path_factory.mktemp("repository") / "repository.git"
    environment = {**os.environ, "GIT_DIR": str(path), "GIT_WORK_TREE": str(ROOT)}
    me = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.compression=0"]
    for command in (["init", "--quiet"], ["add", "--all", "."], [*me, "commit", "--quiet", "-m", "x"], ["tag", REF]):
        subprocess.run(["git", *command], cwd=ROOT, env=environment, check=True)
    return path


def away(address=None):
    """An environment from which `ADDRESS` leads to `address`, and where no path leads to this folder."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EDM_LESSON", "GIT_", "PYTHON", "JUPYTER", "VIRTUAL_ENV"))
    }
    elsewhere = {"COUNT": "1", "KEY_0": f"url.{address}.insteadOf", "VALUE_0": ADDRESS}
    return environment | {f"GIT_CONFIG_{name}": value for name, value in elsewhere.items()}


def python(code, folder, environment):
    """Run Python in `folder` with the packages that are installed here, but not this one: `-S` reads no .pth file."""
    environment = environment | {"PYTHONPATH": sysconfig.get_path("purelib"), "PYTHONDONTWRITEBYTECODE": "1"}
    code = f"cell = {colab.set_up_cell()!r}\n{code}"
    return subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_where_the_package_is_the_cell_does_nothing(tmp_path):
    code = (
        f"cell = {colab.set_up_cell()!r}\n"
        + """
import os, sys
before = os.getcwd(), list(sys.path), dict(os.environ)
exec(cell)
assert (os.getcwd(), sys.path, dict(os.environ)) == before
assert "edm_lesson" not in sys.modules, "it was imported, which takes time"
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "", "GIT_CONFIG_COUNT": "0"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_where_it_is_missing_the_cell_fetches_it_once(tmp_path, repository):
    content = tmp_path / "con tent ü"
    (content / "edm_lesson").mkdir(parents=True)  # a folder of that name, which Python would take for a package
    code = """
import os, sys, time
def state():
    return os.getcwd(), list(sys.path), dict(os.environ)
def files(folder):
    return {os.path.join(top, name): os.stat(os.path.join(top, name)).st_mtime_ns
            for top, _, names in os.walk(folder) for name in names}
content = os.getcwd()
exec(cell)
once, there = state(), files(content)
exec(cell)
assert (state(), files(content)) == (once, there), "the second time something changed"
import edm_lesson, subprocess
assert os.path.isdir("../data/MNIST/raw"), "the digits didn't come along"
assert subprocess.run([sys.executable, "-S", "-c", "import edm_lesson"]).returncode == 0
print(os.path.relpath(edm_lesson.__file__, content), os.path.relpath(os.getcwd(), content), sep=os.linesep)
"""
    inside = [f"{FOLDER}/edm_lesson/__init__.py", f"{FOLDER}/notebooks"]
    ran = python(code, content, away(f"file://{repository}"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == inside
    fetched = {path: path.stat().st_mtime_ns for path in content.rglob("*") if path.is_file()}

    ran = python(code, content, away("file:///nowhere"))
    assert ran.stdout.splitlines() == inside, f"another kernel, and no network any more:\n{ran.stderr}"
    assert {path: path.stat().st_mtime_ns for path in content.rglob("*") if path.is_file()} == fetched


def test_without_a_network_the_cell_says_so(tmp_path):
    ran = python("exec(cell)", tmp_path, away("file:///nowhere"))
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == f"RuntimeError: {ADDRESS} can't be fetched. Is there a network?"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """What pip would be asked to install where only what `present` names is installed."""
    asked = SimpleNamespace(present={}, requests=[], returncode=0)

    def note(command):
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        asked.requests.append([word for word in command[4:] if not word.startswith("-")])
        return asked

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/env/python")
    monkeypatch.setattr(colab, "version_of", lambda name: asked.present.get(name))
    monkeypatch.setattr(subprocess, "run", note)
    return asked


def names_of(requirements):
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_only_what_is_missing_is_installed_and_torch_and_numpy_stay_as_they_are(pip):
    pip.present = dict.fromkeys(names_of(PROJECT["dependencies"]), "1.0")
    pip.present |= {"torch": "2.9.0+cu126", "torchvision": "0.24.0+cu126", "numpy": "2.0.2"}
    colab.set_up()
    assert pip.requests == []
    assert Path.cwd() == ROOT / "notebooks"
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/env/python"]

    del pip.present["safetensors"]
    colab.set_up()
    (request,) = pip.requests
    (wanted,) = [text for text in PROJECT["dependencies"] if text.startswith("safetensors")]
    assert set(request) == {wanted, "torch==2.9.0+cu126", "torchvision==0.24.0+cu126", "numpy==2.0.2"}
    pip.returncode = 1
    with pytest.raises(RuntimeError, match=r"pip couldn't install safetensors.*Is there a network"):
        colab.set_up()


def test_torch_is_never_installed(pip):
    pip.present = {"numpy": "2.0.2"}
    with pytest.raises(RuntimeError, match=f"There is no torch and no torchvision here.*{ADDRESS}"):
        colab.set_up()
    assert pip.requests == []


OLD = {"ipython": "7.34.0", "ipykernel": "6.17.1", "ipywidgets": "7.7.1"}
LEFT_OUT = ("edm_lesson", "_edm_lesson", "__editable__", "typer")
LOOK = f"""
import os
from importlib.metadata import version
import edm_lesson, google.colab, typer
assert {{name: version(name) for name in {list(OLD)}}} == {OLD}
assert os.getcwd().endswith("/content/{FOLDER}/notebooks")
assert edm_lesson.__file__ == os.path.abspath("../edm_lesson/__init__.py")
"""


@pytest.fixture(scope="module")
def old_python(tmp_path_factory):
    """Something like Colab: old IPython and widgets, a stub google.colab, this environment's packages but two."""
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    executable = folder / "venv" / "bin" / "python"
    old = [f"{name}=={version}" for name, version in OLD.items()]
    subprocess.run([executable, "-m", "pip", "install", "--quiet", *old], check=True, env=away())
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    here = folder / "here"
    here.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(LEFT_OUT) and path.suffix != ".pth":
            (here / path.name).symlink_to(path)
    (site / "here.pth").write_text(f"{here}\n")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    kernel = folder / "kernels" / "colab"
    kernel.mkdir(parents=True)
    argv = [str(executable), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    return SimpleNamespace(folder=folder, site=site)


@pytest.mark.installs
def test_the_first_and_a_later_notebook_run_on_something_like_colab(old_python, repository, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(old_python.folder))
    content = old_python.folder / "content"
    content.mkdir()
    course.patch_nbclient()
    installed = None
    for path in course.find_notebooks("00,07"):
        notebook = nbformat.read(path, as_version=4)
        (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        if "train_images" in parameters.source:
            parameters.source += "\ntrain_images = 3200"
        notebook.cells.append(nbformat.v4.new_code_cell(LOOK))
        where = {"metadata": {"path": content}}
        NotebookClient(notebook, timeout=600, kernel_name="colab", resources=where).execute(
            env=away(f"file://{repository}")
        )
        assert not course._errors_under_sliders(notebook)
        there = {entry.name for entry in old_python.site.iterdir()}
        assert "typer" in there, "it was missing"
        assert not there & {"torch", "torchvision", "numpy", "matplotlib"}, "this was installed already"
        assert installed in (None, there), "the second notebook installed something, too"
        installed = there
