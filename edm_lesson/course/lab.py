"""Where the notebooks are, and copies of them to work on."""

import os
from collections.abc import Sequence
from pathlib import Path

import nbformat

from edm_lesson import LessonError
from edm_lesson.course.kernel import kernel_environment
from edm_lesson.data.files import write_text

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


def open_lab(folder: Path = Path("lab"), options: Sequence[str] = ()) -> None:
    """Copy what `folder` lacks of the notebooks, without outputs, and of the notation page; open JupyterLab there.

    Nothing is overwritten. JupyterLab runs in this process, so that it ends with it, however that ends.
    """
    os.environ.update(kernel_environment())
    from jupyterlab.labapp import LabApp
    from nbconvert.preprocessors import ClearOutputPreprocessor

    for path in [*find_notebooks(), NOTEBOOKS / "notation.md"]:
        if (folder / path.name).exists():
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            notebook = nbformat.reads(text, as_version=4)
            notebook.metadata.pop("widgets", None)
            ClearOutputPreprocessor().preprocess(notebook, {})
            text = nbformat.writes(notebook) + "\n"
        write_text(folder / path.name, text)
        print(f"copied {path.name} to {folder}")
    ours = [f"--ServerApp.root_dir={folder.resolve()}"]
    ours += ["--ServerApp.kernel_spec_manager_class=edm_lesson.course.kernel.ThisPython"]
    LabApp.launch_instance([*ours, *options])
