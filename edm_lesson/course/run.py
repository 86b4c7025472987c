"""Running the course: every notebook by papermill, and a table of times."""

import ast
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import papermill
from omegaconf import OmegaConf
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from edm_lesson import LessonError
from edm_lesson.checks import check_choice
from edm_lesson.course.kernel import execute
from edm_lesson.course.lab import IN_REPOSITORY, find_notebooks
from edm_lesson.course.store import errors_under_sliders
from edm_lesson.data.files import written


class Engine(NBClientEngine):
    """Papermill's own way to execute, in a kernel that the course starts."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **_: Any) -> None:
        """Execute what papermill has prepared."""
        execute(PapermillNotebookClient(nb_man))


papermill_engines.register("edm_lesson", Engine)


def run_course(
    only: str | None = None,
    out: Path = Path("runs/course"),
    parameters: Mapping[str, Any] | None = None,
    setting: str = "seconds",
) -> None:
    """Execute notebooks, keep the executed copies in `out` and print how long each took.

    `parameters`, by name, reach the notebooks that have them; text, as typed on the command line, is read as YAML
    where the notebook's own value is no text. `setting` is the parameter of that name, where a notebook has it. Once
    all have run, a `LessonError` names the notebooks and cells that failed; their tracebacks were printed by then.
    """
    found = {path: papermill.inspect_notebook(path) for path in find_notebooks(only)}
    known = {path: {name: ast.literal_eval(it["default"]) for name, it in its.items()} for path, its in found.items()}
    defaults = {name: value for values in known.values() for name, value in values.items()}
    if unknown := [name for name in parameters or {} if name not in defaults]:
        raise LessonError(f"No notebook has a parameter {unknown[0]!r}; there are {', '.join(sorted(defaults))}.")
    chosen = {name: _read(name, f"{value}", defaults[name]) for name, value in (parameters or {}).items()}
    chosen, rows, failures = {"setting": setting, **chosen}, [], []
    check_choice("setting", chosen["setting"], ("seconds", "minutes", "full"))
    if (out / "notation.md").exists():
        raise LessonError(f"{out} holds notebooks to read or to work on, which would be replaced; give another --out.")
    for path in known:
        started = time.perf_counter()
        with written(out / path.name) as part:
            failure = _execute(path, part, {name: chosen[name] for name in chosen if name in known[path]})
        rows.append((path.name, time.perf_counter() - started, "FAILED" if failure else "ok"))
        failures += [f"{path.name}: {failure}. The notebook as far as it came: {out / path.name}"] if failure else []

    print(f"\n{'notebook':<40} {'seconds':>8}  result")
    for row in [*rows, ("all", sum(seconds for _, seconds, _ in rows), f"executed copies in {out}")]:
        print("{:<40} {:8.1f}  {}".format(*row))
    if failures:
        print(*failures, sep="\n")
        raise LessonError(f"{len(failures)} of {len(rows)} notebooks failed. {' '.join(failures)}")


def _read(name, text, default):
    """The value that was typed for a parameter, of the type of its default; text is typed without quotes."""
    try:
        value = text if isinstance(default, str) else OmegaConf.from_dotlist([f"value={text}"]).value
    except Exception:  # whatever a YAML reader stumbles over
        value = None
    if type(value) is not type(default):
        raise LessonError(f"-p {name} is {text!r}; it must be of the kind of {default!r}, which the notebook has.")
    return value


def _execute(path, copy, parameters):
    """Execute one notebook into its copy: None, or its failure in a line; the traceback is printed."""
    folder = path.parent if IN_REPOSITORY else copy.parent.parent  # from either, `../runs` is where runs are kept
    try:
        executed = papermill.execute_notebook(
            path, copy, parameters, "edm_lesson", kernel_name="python3", cwd=folder, progress_bar={"desc": path.stem}
        )
        errors = [("a slider's function", error) for error in errors_under_sliders(executed)]
    except papermill.PapermillExecutionError as error:
        errors = [(f"cell {error.cell_index} (In [{error.exec_count}])", error)]
    except OSError:  # the copy can't be written
        raise
    except Exception as error:  # whatever stopped the kernel, the others still run
        return f"{type(error).__name__}: {error}"
    if not errors:
        return None
    where, raised = errors[0]
    print(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(raised.traceback)))  # without the colours of a terminal
    return f"{where} raised {raised.ename}: {raised.evalue}"
