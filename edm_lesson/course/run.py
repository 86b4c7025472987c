"""Running the course: every notebook with papermill, copies to work on, and the stored versions."""

import html
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import yaml

from edm_lesson import LessonError
from edm_lesson.course.colab import add_colab

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SETTINGS = {"ci": {"setting": "seconds"}, "cpu": {"setting": "minutes"}, "t4": {"setting": "full"}}
WIDGET_VIEW, WIDGET_STATE = (f"application/vnd.jupyter.widget-{part}+json" for part in ("view", "state"))
QUIET = ["--IPKernelApp.log_level=40"]  # no warnings about how the kernel is connected


def find_notebooks(only=None):
    """The notebooks in reading order, or those whose numbers `only` lists ("00,02").

    Raises `LessonError` where there is none.
    """
    notebooks = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise LessonError(
            f"There are no notebooks in {NOTEBOOKS}: they come with the repository, not with the package."
        )
    numbers = [path.name[:2] for path in notebooks]
    wanted = numbers if only is None else [number.strip().zfill(2) for number in only.split(",")]
    for number in wanted:
        if number not in numbers:
            raise LessonError(f"There is no notebook {number}; there are {', '.join(numbers)}.")
    return [path for path in notebooks if path.name[:2] in wanted]


def patch_nbclient():
    """Keep nbclient, and so papermill, from waiting forever on a cell with a slider.

    It echoes every picture of a slider to the kernel on the socket on which it waits for the cell's reply, past
    asyncio, which then misses the reply now and then. Nobody needs the echo: the pictures are kept in `widget_state`.
    """
    from nbclient.output_widget import OutputWidget

    OutputWidget.sync_state = lambda self: None


def run_course(only=None, out="runs/course", parameters=None, setting="ci", jobs=1, again=False):
    """Execute notebooks with papermill, keep the executed copies in `out` and print a table of times.

    Parameters
    ----------
    only : numbers of notebooks, "00,02"; default: all.
    parameters : by name; text, as typed on the command line, is read as YAML.
    setting : how long the notebooks that train for a while do so, one of `SETTINGS`.
    jobs : how many notebooks to run at once, each in a process.
    again : run those as well whose executed copy is there already, made with these parameters of this notebook and
        this package.

    Raises `LessonError` for a parameter that none of the notebooks has and, once all have run, where a cell failed,
    naming notebook and cell; its traceback was printed by then.
    """
    import papermill

    from edm_lesson.checks import check_choice, check_count  # brings torch, which the workers can do without

    check_choice("setting", setting, SETTINGS)
    check_count("jobs", jobs)
    notebooks = find_notebooks(only)
    parameters = {
        name: yaml.safe_load(value) if isinstance(value, str) else value for name, value in (parameters or {}).items()
    }
    known = {path: set(papermill.inspect_notebook(str(path))) for path in notebooks}
    for name in parameters:
        if not any(name in names for names in known.values()):
            names = ", ".join(sorted(set().union(*known.values()))) or "none"
            raise LessonError(f"No notebook has a parameter {name!r}; there are {names}.")

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows, failures, tasks = {}, [], []
    for path in notebooks:
        chosen = {**SETTINGS[setting], **parameters}
        task = path, out / path.name, {name: value for name, value in chosen.items() if name in known[path]}
        seconds = None if again else _seconds_of_finished(*task)
        if seconds is None:
            tasks.append((*task, jobs == 1))
        else:
            rows[path.name] = seconds, "done before"
            print(f"{path.name} was run already, with the same parameters: see {task[1]}. --again runs it again.")

    try:
        with _workers(jobs) as each:
            for name, seconds, failure in each(_execute, tasks):
                rows[name] = seconds, "FAILED" if failure else "ok"
                print(f"{name} {'failed' if failure else 'ran'}, {len(rows)} of {len(notebooks)}", flush=True)
                if failure:
                    print(failure[1])
                    failures.append(f"{name}: {failure[0]}")
    except KeyboardInterrupt:
        raise LessonError("Stopped. The same command goes on with the notebooks that are not done.") from None

    print(f"\n{'notebook':<40} {'seconds':>8}  result")
    for path in notebooks:
        seconds, outcome = rows[path.name]
        print(f"{path.name:<40} {seconds:8.1f}  {outcome}")
    print(f"{'all':<40} {sum(seconds for seconds, _ in rows.values()):8.1f}  executed copies in {out}")
    if failures:
        raise LessonError("\n".join([f"{len(failures)} of {len(rows)} notebooks failed.", *failures]))


def _seconds_of_finished(path, copy, parameters):
    """How long `path` took when `copy` was made of it with the same parameters; None where that has to be done yet.

    Older than a file of the package, or not executed to its end, a copy doesn't count.
    """
    import nbformat

    package = [file for suffix in ("py", "yaml") for file in Path(__file__).parents[1].rglob(f"*.{suffix}")]
    try:
        if copy.stat().st_mtime < max(file.stat().st_mtime for file in package):
            return None
        executed, notebook = nbformat.read(copy, as_version=4), nbformat.read(path, as_version=4)
    except (OSError, ValueError):
        return None
    told = executed.metadata.get("papermill", {})
    cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if (
        told.get("parameters") != parameters
        or [cell.source for cell in cells] != [cell.source for cell in notebook.cells]
        or any(cell.metadata.papermill.status != "completed" for cell in executed.cells)
        or _errors_under_sliders(executed)
    ):
        return None
    return told.duration


@contextmanager
def _workers(jobs):
    """`map` for one job at a time, otherwise its like over `jobs` processes, which end with the block."""
    if jobs == 1:
        yield map
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or they spin for each other's cores
    with get_context("spawn").Pool(jobs) as pool:
        yield pool.imap_unordered


def _execute(task):
    """Execute one notebook: its name, the seconds it took, and None or its failure, in a line and in full."""
    import papermill

    path, copy, parameters, progress = task
    patch_nbclient()
    started, failure = time.perf_counter(), None
    try:
        executed = papermill.execute_notebook(
            str(path),
            str(copy),
            parameters,
            kernel_name="python3",
            cwd=str(path.parent),
            progress_bar={"desc": path.stem} if progress else False,
            extra_arguments=QUIET,
        )
        if errors := _errors_under_sliders(executed):
            failure = f"a slider's function raised {errors[0].ename}: {errors[0].evalue}", _plain(errors[0].traceback)
    except papermill.PapermillExecutionError as error:
        where = f"cell {error.cell_index} (In [{error.exec_count}]) raised {error.ename}: {error.evalue}"
        failure = where, _plain(error.traceback)
    except Exception as error:  # whatever stopped the kernel, the others still run
        failure = f"{type(error).__name__}: {error}", ""
    if failure:
        failure = f"{failure[0]}\n  The notebook as far as it came: {copy}", failure[1]
    return path.name, time.perf_counter() - started, failure


def widget_models(notebook):
    """The stored models of a notebook's widgets, by their ids; none where it has no widgets."""
    return notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})


def _errors_under_sliders(notebook):
    """What functions under sliders raised: Jupyter keeps it in the widgets' state and goes on as if nothing was."""
    outputs = [output for model in widget_models(notebook).values() for output in model["state"].get("outputs", [])]
    return [output for output in outputs if output["output_type"] == "error"]


def _plain(traceback):
    """A traceback's lines without the colours of a terminal, as one text."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))


def describe_widgets(notebook):
    """Say in words, for those who read on a code host, what sliders are for and how bars of progress ended."""
    widgets = widget_models(notebook)

    def parts(model):
        return [widgets[child.removeprefix("IPY_MODEL_")]["state"] for child in model["state"].get("children", [])]

    for data in [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]:
        model = widgets.get(data.get(WIDGET_VIEW, {}).get("model_id"))
        if model is None:
            continue
        names = [part["description"] for part in parts(model) if part.get("description")]
        values = [html.unescape(part["value"]) for part in parts(model) if isinstance(part.get("value"), str)]
        data["text/plain"] = (
            f"Run the notebook to move {', '.join(names)}." if names else " ".join("".join(values).split())
        )


def refresh_notebooks(only=None):
    """Bring of stored notebooks the link to Colab, the set-up cell and what stands for widgets up to date, without
    executing anything."""
    import nbformat

    for path in find_notebooks(only):
        before = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(before, as_version=4)
        add_colab(notebook, path.name)
        describe_widgets(notebook)
        text = nbformat.writes(notebook) + "\n"
        if text != before:
            path.write_text(text, encoding="utf-8")
            print(f"{path.name} brought up to date")


def store_notebooks(only=None):
    """Execute notebooks in a clean kernel on the CPU and store them, outputs and widget state included, where they are.

    Link to Colab and set-up cell are brought up to date first. A notebook whose cell fails is left as it was, and
    `LessonError` says which cell.
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
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        notebook.metadata = nbformat.from_dict({"kernelspec": kernel})
        add_colab(notebook, path.name)
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
            raise LessonError(f"{path.name} is left as it was: a cell failed.\n{error}") from error
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        describe_widgets(notebook)
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
