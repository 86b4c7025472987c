"""Running the course: every notebook with papermill, copies to work on, and the stored versions."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
QUIET = ["--IPKernelApp.log_level=40"]  # no warnings about how the kernel is connected


class CourseError(RuntimeError):
    """A notebook failed or can't be found; the message says which and where."""


def find_notebooks(only=None):
    """The notebooks in reading order, or those whose numbers `only` lists ("00,02").

    Raises `CourseError` where there is none.
    """
    notebooks = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise CourseError(
            f"There are no notebooks in {NOTEBOOKS}: they come with the repository, not with the package."
        )
    numbers = [path.name[:2] for path in notebooks]
    wanted = numbers if only is None else [number.strip().zfill(2) for number in only.split(",")]
    for number in wanted:
        if number not in numbers:
            raise CourseError(f"There is no notebook {number}; there are {', '.join(numbers)}.")
    return [path for path in notebooks if path.name[:2] in wanted]


def patch_nbclient():
    """Keep nbclient, and so papermill, from waiting forever on a cell with a slider.

    It echoes every picture of a slider to the kernel on the socket on which it waits for the cell's reply, past
    asyncio, which then misses the reply now and then. Nobody needs the echo: the pictures are kept in `widget_state`.
    """
    from nbclient.output_widget import OutputWidget

    OutputWidget.sync_state = lambda self: None


def run_course(only=None, out="runs/course", parameters=None):
    """Execute notebooks with papermill, keep the executed copies in `out` and print a table of times.

    `parameters` are text as typed on the command line and are read as YAML. Raises `CourseError` for a parameter
    that none of the notebooks has and, once all have run, where a cell failed, naming notebook and cell.
    """
    import papermill

    patch_nbclient()
    notebooks = find_notebooks(only)
    parameters = {
        name: yaml.safe_load(value) if isinstance(value, str) else value for name, value in (parameters or {}).items()
    }
    known = {path: set(papermill.inspect_notebook(str(path))) for path in notebooks}
    for name in parameters:
        if not any(name in names for names in known.values()):
            names = ", ".join(sorted(set().union(*known.values()))) or "none"
            raise CourseError(f"No notebook has a parameter {name!r}; there are {names}.")

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows, failures = [], []
    for path in notebooks:
        started, outcome = time.perf_counter(), "ok"
        chosen = {name: value for name, value in parameters.items() if name in known[path]}
        try:
            papermill.execute_notebook(
                str(path),
                str(out / path.name),
                chosen,
                kernel_name="python3",
                cwd=str(path.parent),
                progress_bar={"desc": path.stem},
                extra_arguments=QUIET,
            )
        except Exception as error:  # whatever stopped the kernel, the others still run
            outcome = "FAILED"
            failures.append(f"{path.name}: {_where(error)}")
        rows.append((path.name, time.perf_counter() - started, outcome))

    print(f"\n{'notebook':<40} {'seconds':>8}  result")
    for name, seconds, outcome in rows:
        print(f"{name:<40} {seconds:8.1f}  {outcome}")
    print(f"{'all':<40} {sum(seconds for _, seconds, _ in rows):8.1f}  executed copies in {out}")
    if failures:
        raise CourseError("\n".join([f"{len(failures)} of {len(rows)} notebooks failed.", *failures]))


def _where(error):
    """One paragraph on a failure: the cell and what it raised, where papermill knows them."""
    if hasattr(error, "ename"):
        return f"cell {error.cell_index} (In [{error.exec_count}]) raised {error.ename}: {error.evalue}\n{error.source}"
    return f"{type(error).__name__}: {error}"


def store_notebooks(only=None):
    """Execute notebooks in a clean kernel on the CPU and store them, outputs and widget state included, where they are.

    A notebook whose cell fails is left as it was, and `CourseError` says which cell.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    patch_nbclient()
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    for path in find_notebooks(only):
        print(f"{path.name} …", end=" ", flush=True)
        started = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        }
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": path.parent}},
            record_timing=False,
            extra_arguments=QUIET,
        )
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            raise CourseError(f"{path.name} is left as it was: a cell failed.\n{error}") from error
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        notebook.metadata.get("language_info", {}).pop("version", None)
        nbformat.write(notebook, path)
        print(f"{time.perf_counter() - started:.1f} s")


def open_lab(folder="lab", options=()):
    """Copy what `folder` lacks of the notebooks and their notation page into it, open JupyterLab there.

    Nothing is overwritten. Returns JupyterLab's exit status.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*find_notebooks(), *NOTEBOOKS.glob("notation.md")]:
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
            print(f"copied {path.name} to {folder}")
    return subprocess.run(
        [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}", *options]
    ).returncode
