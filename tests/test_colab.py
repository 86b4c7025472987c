"""A notebook alone, as on Colab and Kaggle: it installs the course at its version, and runs."""

import copy
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

from edm_lesson import course
from edm_lesson.course import colab, lab

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS, REF = PROJECT["urls"]["Repository"], f"v{PROJECT['version']}"


@pytest.mark.parametrize("path", course.find_notebooks(), ids=lambda path: path.stem)
def test_every_notebook_has_the_link_the_cell_and_the_t4_that_pyproject_asks_for(path):
    notebook = nbformat.read(path, as_version=4)
    fresh = copy.deepcopy(notebook)
    colab.add_colab(fresh, path.name)
    assert fresh == notebook, f"{path.name} is out of date; run: edm-lesson course --colab"
    (link,) = re.findall(r"^\[Open in Colab\]\((.*)\)$", notebook.cells[0].source, flags=re.MULTILINE)
    owner = ADDRESS.removeprefix("https://github.com/")
    assert link == f"https://colab.research.google.com/github/{owner}/blob/{REF}/notebooks/{path.name}"
    cell = notebook.cells[1]
    assert f"{ADDRESS}/archive/{REF}.tar.gz" in cell.source
    assert len([line for line in cell.source.splitlines() if line]) == 4
    assert cell.metadata.jupyter.source_hidden
    assert (notebook.metadata.accelerator, notebook.metadata.colab.gpuType) == ("GPU", "T4")


@pytest.fixture
def untouched():
    cells = [nbformat.v4.new_markdown_cell("# A title\n\nText."), *map(nbformat.v4.new_code_cell, ("1", "print(2)"))]
    return nbformat.v4.new_notebook(cells=cells)


def test_another_address_or_version_reaches_link_and_cell_and_nothing_else(untouched, monkeypatch):
    colab.add_colab(untouched, "00_a.ipynb")
    nbformat.validate(untouched)
    title, link, text = untouched.cells[0].source.split("\n\n")
    assert (title, text) == ("# A title", "Text.")
    assert link.startswith("[Open in Colab](")
    assert [cell.source for cell in untouched.cells[2:]] == ["1", "print(2)"]
    before = copy.deepcopy(untouched)
    monkeypatch.setattr(colab, "repository", lambda: ("https://github.com/someone/else", "v9.9"))
    colab.add_colab(untouched, "00_a.ipynb")
    assert "github/someone/else/blob/v9.9/notebooks/00_a.ipynb" in untouched.cells[0].source
    assert "https://github.com/someone/else/archive/v9.9.tar.gz" in untouched.cells[1].source
    assert not any(old in cell.source for old in (ADDRESS, REF) for cell in untouched.cells)
    assert untouched.cells[2:] == before.cells[2:]
    monkeypatch.undo()
    colab.add_colab(untouched, "00_a.ipynb")
    assert untouched == before


def test_one_command_brings_all_notebooks_up_to_date_without_executing_them(run, tmp_path, monkeypatch, untouched):
    monkeypatch.setattr(lab, "NOTEBOOKS", tmp_path)
    untouched.cells[2].outputs = [nbformat.v4.new_output("stream", text="2\n")]
    nbformat.write(untouched, tmp_path / "00_a.ipynb")
    code, said, error = run("course", "--colab")
    assert code == 0, error
    assert "00_a.ipynb brought up to date" in said
    assert nbformat.read(tmp_path / "00_a.ipynb", 4).cells[3].outputs[0].text == "2\n"
    assert run("course", "--colab")[1] == ""


@pytest.mark.parametrize(
    ("there", "asked"), [("a package", False), ("a mere folder", True), ("nothing", True), ("the repository", False)]
)
def test_the_cell_asks_pip_only_where_the_package_is_missing(tmp_path, monkeypatch, there, asked):
    """A folder of that name, such as a clone's parent, is no package, though Python would import it."""
    content = tmp_path / "con tent ü"
    (content / "edm_lesson").mkdir(parents=True)
    if there == "a package":
        (content / "edm_lesson" / "__init__.py").write_text("raise RuntimeError('imported, which takes time')")
    elif there == "nothing":
        (content / "edm_lesson").rmdir()
    elif there == "the repository":  # and another Python's kernel: the network is not what is missing
        (tmp_path / "edm_lesson" / "course").mkdir(parents=True)
    monkeypatch.chdir(content)
    monkeypatch.setattr(sys, "path", [str(content), *[place for place in sys.path if not find_in(place)]])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "edm_lesson"]:
        monkeypatch.delitem(sys.modules, name)
    shell, requests = InteractiveShell.instance(), []
    try:
        shell.register_magic_function(requests.append, magic_name="pip")
        shell.run_cell(colab.set_up_cell()).raise_error()
    finally:
        InteractiveShell.clear_instance()
    assert requests == ([f'install -q "edm_lesson @ {ADDRESS}/archive/{REF}.tar.gz"'] if asked else [])


def find_in(place):
    return (Path(place or ".") / "edm_lesson").is_dir()


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An environment of its own with this one's packages, but not this package."""
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    for path in Path(nbformat.__file__).parents[1].iterdir():
        if "edm_lesson" not in path.name and path.suffix != ".pth" and not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive of this folder as it is now, without what git ignores, as the code host makes one of a version."""
    path = tmp_path_factory.mktemp("archive") / f"{REF}.tar.gz"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for name in filter(None, names):
            file.add(ROOT / name, f"edm_lesson-{REF}/{name}")
    return path


LOOK = """
import edm_lesson
from edm_lesson.course import find_notebooks
print(edm_lesson.__file__, len(find_notebooks()))
"""


@pytest.mark.installs
def test_a_notebook_runs_where_only_its_cell_brings_the_package(bare_python, archive, tmp_path, monkeypatch):
    """The address leads to this folder, as it is now; pip builds the wheel from it, torch stays as it is."""
    for name in [name for name in os.environ if name.startswith(("EDM_LESSON", "PYTHON", "JUPYTER", "VIRTUAL_ENV"))]:
        monkeypatch.delenv(name)
    notebook = nbformat.read(course.find_notebooks("02")[0], as_version=4)
    notebook.cells[1].source = notebook.cells[1].source.replace(f"{ADDRESS}/archive/{REF}.tar.gz", archive.as_uri())
    assert archive.as_uri() in notebook.cells[1].source
    notebook.cells.append(nbformat.v4.new_code_cell(LOOK))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}})
    kernel = tmp_path / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    argv = [str(bare_python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    client.kernel_name = "colab"
    client.execute()
    place, count = notebook.cells[-1].outputs[-1].text.split()
    assert Path(place).is_relative_to(bare_python.parents[1])
    assert int(count) == len(course.find_notebooks())
