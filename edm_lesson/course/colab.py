"""Notebooks without the repository around them, as on Colab: their link to it, and the cell that fetches the course.

The repository's address and the version that is fetched stand once, in `pyproject.toml`; from there
`edm-lesson course --colab` writes them into every notebook. Nothing here needs more than Python itself, because it
is also what a notebook calls once the course is fetched.
"""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("numpy", "torch", "torchvision")  # the environment's own, which nothing here installs or exchanges
CELL_ID = "set-up"


def project():
    """The table `project` of `pyproject.toml`: name, version, dependencies, addresses."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def repository():
    """The repository's address, and the tag of the version that notebooks fetch from it."""
    return project()["urls"]["Repository"], f"v{project()['version']}"


def colab_link(name):
    """The address at which Colab opens the notebook of that file name."""
    address, ref = repository()
    return f"https://colab.research.google.com/github{urlsplit(address).path}/blob/{ref}/notebooks/{name}"


def set_up_cell():
    """The source of the cell that fetches the course where it is missing, the same in every notebook."""
    address, ref = repository()
    return f"""\
# Where edm_lesson is missing, as on Colab, this cell fetches the course; elsewhere it does nothing.
import importlib.util
import os
import subprocess
import sys

package = importlib.util.find_spec("edm_lesson")
if package is None or package.origin is None:  # a mere folder of that name has no origin
    address, folder = "{address}", os.path.abspath("edm_lesson-{ref}")
    fetch = ["git", "clone", "--quiet", "--depth=1", "--branch={ref}", address, folder]
    if not os.path.exists(folder) and subprocess.run(fetch).returncode:
        raise RuntimeError(f"{{address}} can't be fetched. Is there a network?")
    sys.path.insert(0, folder)
    from edm_lesson.course.colab import set_up

    set_up()"""


def add_colab(notebook, name):
    """Bring a notebook's link to Colab, its set-up cell and its wish for a T4 up to date; nothing else changes.

    The link stands below the title, the cell below the text that begins with it. Where the cell is new, later cells
    count on from it, so that the notebook still looks executed from top to bottom. `name` is that of its file.
    Raises `ValueError` for a notebook that doesn't begin with a title.
    """
    import nbformat

    top = notebook.cells[0]
    if top.cell_type != "markdown" or not top.source.startswith("# "):
        raise ValueError(f"{name} doesn't begin with a title; start its first cell, a text, with '# '.")
    text = re.sub(r"^\[Open in Colab\]\(.*\)\n\n", "", top.source, flags=re.MULTILINE)
    title, _, rest = text.partition("\n")
    top.source = f"{title}\n\n[Open in Colab]({colab_link(name)})\n{rest}"

    if len(notebook.cells) < 2 or notebook.cells[1].get("id") != CELL_ID:
        executed = [cell for cell in notebook.cells if cell.get("execution_count")]
        for counted in [*executed, *(output for cell in executed for output in cell.outputs)]:
            if counted.get("execution_count"):
                counted.execution_count += 1
        count = 1 if executed else None
        notebook.cells.insert(1, nbformat.v4.new_code_cell(id=CELL_ID, execution_count=count))
    notebook.cells[1].source = set_up_cell()
    notebook.metadata.update(accelerator="GPU", colab={"gpuType": "T4"})


def version_of(name):
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def set_up():
    """Install what the fetched course needs and nobody installed, and work in its folder of notebooks from now on.

    What is there stays as it is, torch, torchvision and NumPy above all. Raises `RuntimeError` where one of these is
    missing, or where pip fails.
    """
    kept = {name: version_of(name) for name in KEPT}
    if absent := [name for name, version in kept.items() if version is None]:
        told = f"There is no {' and no '.join(absent)} here."
        raise RuntimeError(f"{told} Install the course as its README says: {project()['urls']['Repository']}")
    names = {re.match(r"[\w.-]+", wanted)[0]: wanted for wanted in project()["dependencies"]}
    missing = [wanted for name, wanted in names.items() if version_of(name) is None]
    if missing:
        pins = [f"{name}=={version}" for name, version in kept.items()]
        if subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing, *pins]).returncode:
            raise RuntimeError(f"pip couldn't install {', '.join(missing)}. Is there a network?")
        importlib.invalidate_caches()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.chdir(ROOT / "notebooks")
