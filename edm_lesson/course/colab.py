"""Notebooks without the package, as on Colab and Kaggle: their link to Colab, and the cell that installs the course.

Address and version stand once, in `pyproject.toml`; `edm-lesson course --colab` writes them into every notebook.
"""

import re
import tomllib
from urllib.parse import urlsplit

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from edm_lesson.course.lab import PACKAGE

CELL_ID = "set-up"


def repository() -> tuple[str, str]:
    """The repository's address, and the tag of the version that notebooks install from it."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"], f"v{project['version']}"


def set_up_cell() -> str:
    """The source of the cell that installs the package where it is missing; a mere folder of its name is no package.

    Beside the repository only the kernel is wrong, and nothing is installed. As an archive, git asks for no password.
    """
    address, ref = repository()
    return f"""\
from importlib.util import find_spec
from pathlib import Path

if not (getattr(find_spec("edm_lesson"), "origin", None) or Path("../edm_lesson/course").exists()):  # on Colab, Kaggle
    %pip install -q "edm_lesson @ {address}/archive/{ref}.tar.gz\""""


def add_colab(notebook: NotebookNode, name: str) -> None:
    """Bring a notebook's link to Colab, its set-up cell and its wish for a T4 up to date; `name` is that of its file.

    The link stands below the title, with which its first cell begins; the cell, hidden in JupyterLab, below that text.
    """
    address, ref = repository()
    title, _, rest = notebook.cells[0].source.partition("\n")
    rest = re.sub(r"^\[Open in Colab\]\(.*\)\n\n", "", rest.lstrip("\n"))
    link = f"https://colab.research.google.com/github{urlsplit(address).path}/blob/{ref}/notebooks/{name}"
    notebook.cells[0].source = f"{title}\n\n[Open in Colab]({link})\n\n{rest}"
    if notebook.cells[1].get("id") != CELL_ID:
        notebook.cells.insert(1, new_code_cell(id=CELL_ID))
    notebook.cells[1].update(source=set_up_cell(), metadata={"jupyter": {"source_hidden": True}})
    notebook.metadata.update(accelerator="GPU", colab={"gpuType": "T4"})
