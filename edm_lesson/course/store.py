"""Storing notebooks where they are, so that storing them twice changes only the pictures that changed."""

import html
import re
import time
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from edm_lesson import LessonError
from edm_lesson.course.colab import add_colab
from edm_lesson.course.kernel import execute
from edm_lesson.course.lab import find_notebooks
from edm_lesson.data.files import write_text

WIDGET_VIEW, WIDGET_STATE = (f"application/vnd.jupyter.widget-{part}+json" for part in ("view", "state"))


def widget_models(notebook: NotebookNode) -> dict[str, Any]:
    """The stored models of a notebook's widgets, by their ids; none where it has no widgets."""
    return notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})


def errors_under_sliders(notebook: NotebookNode) -> list[NotebookNode]:
    """What functions under sliders raised: Jupyter keeps it in the widgets' state and goes on as if nothing was."""
    outputs = [output for model in widget_models(notebook).values() for output in model["state"].get("outputs", [])]
    return [output for output in outputs if output["output_type"] == "error"]


def describe_widgets(notebook: NotebookNode) -> None:
    """Say in words, for those who read on a code host, what sliders are for and how bars of progress ended."""
    widgets = widget_models(notebook)
    for data in [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]:
        if model := widgets.get(data.get(WIDGET_VIEW, {}).get("model_id")):
            parts = [widgets[child.removeprefix("IPY_MODEL_")]["state"] for child in model["state"].get("children", [])]
            names = [part["description"] for part in parts if part.get("description")]
            ended = " ".join(part["value"] for part in parts if isinstance(part.get("value"), str))
            told = f"Run the notebook to move {', '.join(names)}." if names else html.unescape(ended)
            data["text/plain"] = " ".join(told.split())


def steady(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what differs each time: widgets have numbers for ids, bars of progress lose seconds, and
    text that a kernel sent in pieces is one.
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    models = widget_models(notebook)
    for state in [model["state"] for model in models.values() if isinstance(model["state"].get("value"), str)]:
        state["value"] = re.sub(r"\s*\[[^,\]]*, *\s*[^,\]]*(?:,\s*([^\]]*))?\]", r" \1", state["value"]).rstrip()
    describe_widgets(notebook)
    text = nbformat.writes(notebook)
    for number, model in enumerate(models):
        text = text.replace(model, f"{number:032x}")
    return nbformat.reads(text, as_version=4)


def store_notebooks(only: str | None = None) -> None:
    """Execute notebooks in a clean kernel on the CPU and store them, outputs and widget state included, where they are.

    Link to Colab and set-up cell are brought up to date first. A notebook whose cell fails is left as it was, and
    `LessonError` says which cell.
    """
    for path in find_notebooks(only):
        print(f"{path.name} …", end=" ", flush=True)
        started = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        notebook.metadata = nbformat.from_dict({"kernelspec": kernel})
        add_colab(notebook, path.name)
        client = NotebookClient(notebook, resources={"metadata": {"path": path.parent}}, record_timing=False)
        try:
            execute(client, CUDA_VISIBLE_DEVICES="")
        except CellExecutionError as error:
            print(error)
            raise LessonError(f"{path.name} is left as it was: {error.ename}: {error.evalue}") from error
        notebook.metadata.get("language_info", {}).pop("version", None)
        write_text(path, nbformat.writes(steady(notebook)) + "\n")
        print(f"{time.perf_counter() - started:.1f} s")


def refresh_notebooks(only: str | None = None) -> None:
    """Bring of stored notebooks the link to Colab and the set-up cell up to date, without executing anything."""
    for path in find_notebooks(only):
        before = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(before, as_version=4)
        add_colab(notebook, path.name)
        text = nbformat.writes(notebook) + "\n"
        if text != before:
            write_text(path, text)
            print(f"{path.name} brought up to date")
