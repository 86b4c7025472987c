"""Where the notebooks are, and copies of them to work on."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from edm_lesson import LessonError
from edm_lesson.course.kernel import kernel_environment

PACKAGE = Path(__file__).resolve().parents[1]
IN_REPOSITORY = (PACKAGE.parent / "notebooks" / "notation.md").exists()  # else in an installed wheel
NOTEBOOKS = PACKAGE.parent / "notebooks" if IN_REPOSITORY else PACKAGE / "shipped" / "notebooks"


def find_notebooks(only: str | None = None) -> list[Path]:
    """The notebooks in reading order, or those whose numbers `only` lists ("00,02")."""
    notebooks = {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    wanted = list(notebooks) if only is None else [number.strip().zfill(2) for number in only.split(",")]
    if unknown := set(wanted) - set(notebooks):
        raise LessonError(f"There is no notebook {min(unknown)}; there are {', '.join(notebooks)} in {NOTEBOOKS}.")
    return [path for number, path in notebooks.items() if number in wanted]


def open_lab(folder: Path = Path("lab"), options: Sequence[str] = ()) -> int:
    """Copy what `folder` lacks of the notebooks, without outputs, and of the notation page; open JupyterLab there.

    Nothing is overwritten. Returns JupyterLab's exit status.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*find_notebooks(), NOTEBOOKS / "notation.md"]:
        if (folder / path.name).exists():
            continue
        if path.suffix == ".ipynb":
            notebook = nbformat.read(path, as_version=4)
            notebook.metadata.pop("widgets", None)
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.update(outputs=[], execution_count=None)
            nbformat.write(notebook, folder / path.name)
        else:
            shutil.copyfile(path, folder / path.name)
        print(f"copied {path.name} to {folder}")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}"]
    command += ["--ServerApp.kernel_spec_manager_class=edm_lesson.course.kernel.ThisPython", *options]
    return subprocess.run(command, env=kernel_environment()).returncode
