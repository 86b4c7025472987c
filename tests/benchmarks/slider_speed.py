"""How fast the course's sliders redraw: `python tests/benchmarks/slider_speed.py [--only 02,07] [--json out.json]`.

Runs each notebook up to its last slider on the CPU. Then every control goes through up to seven of its values, the
others at their defaults; each time the figure is drawn and made into a PNG, as JupyterLab asks for it. At most 150 ms
may pass where no network runs, 1 s up to the network evaluations of 8 Heun steps, 2 s above, in the median over a
control's values. Run it on an otherwise idle machine. Ends with status 1 where a slider is slower.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from statistics import median

import nbformat
from nbclient import NotebookClient

from edm_lesson.course import execute, find_notebooks

MEASURE = """
import json, time
import torch
from ipywidgets import FloatLogSlider
from torch.nn.modules.module import register_module_forward_pre_hook


def values_of(control, most=7):
    if hasattr(control, "options"):
        return [value for _, value in control._options_full]
    if isinstance(control.value, bool):
        return [False, True]
    count = min(most, round((control.max - control.min) / control.step) + 1)
    values = [control.min + k * (control.max - control.min) / (count - 1) for k in range(count)]
    if isinstance(control, FloatLogSlider):
        return [control.base**value for value in values]
    return [round(value) for value in values] if isinstance(control.value, int) else values


def redraw(settings):
    evaluations = []
    hook = register_module_forward_pre_hook(
        lambda module, inputs: evaluations.append(1) if type(module).__name__ == "LessonUNet" else None
    )
    started = time.perf_counter()
    data, _ = get_ipython().display_formatter.format(slider.f(**settings))
    seconds = time.perf_counter() - started
    hook.remove()
    assert "image/png" in data
    return {"ms": 1000 * seconds, "evaluations": len(evaluations)}


slider = moved.widget
defaults = {control._kwarg: control.value for control in slider.kwargs_widgets}
redraw(defaults)
rows = [
    {
        "slider": f"{slider.f.__name__}, {control._kwarg}",
        "continuous": getattr(control, "continuous_update", False),
        "redraws": [{"value": value} | redraw(defaults | {control._kwarg: value}) for value in values_of(control)],
    }
    for control in slider.kwargs_widgets
]
print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}))
"""


def limit(redraw):
    """The milliseconds that one redraw may take, by the network evaluations in it."""
    return 150 if not redraw["evaluations"] else 1000 if redraw["evaluations"] <= 15 else 2000


def measure(path):
    """What `MEASURE` prints after each slider of the notebook at `path`."""
    notebook, cells = nbformat.read(path, as_version=4), []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cells.append(cell)
            if "_ = interact(" in cell.source:
                cell.source = cell.source.replace("_ = interact(", "moved = interact(")
                cells.append(nbformat.v4.new_code_cell(MEASURE))
    last = max((place for place, cell in enumerate(cells) if cell.source == MEASURE), default=-1)
    notebook.cells = cells[: last + 1]
    folder = {"metadata": {"path": path.parent}}
    execute(NotebookClient(notebook, resources=folder), CUDA_VISIBLE_DEVICES="")
    return [json.loads(cell.outputs[-1].text) for cell in notebook.cells if cell.source == MEASURE]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="numbers of notebooks, such as 02,07; default: all")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'notebook':<9}{'slider':<34}{'evaluations':>12}{'median ms':>11}{'worst ms':>10}{'limit':>7}")
    measured, misses = [], 0
    for path in find_notebooks(given.only):
        for found in measure(path):
            for row in found["rows"]:
                worst = max(row["redraws"], key=lambda redraw: redraw["ms"] / limit(redraw))
                row |= {
                    "notebook": path.name[:2],
                    "median_ms": median(redraw["ms"] for redraw in row["redraws"]),
                    "worst_ms": worst["ms"],
                    "limit_ms": limit(worst),
                    "passed": median(redraw["ms"] / limit(redraw) for redraw in row["redraws"]) <= 1,
                }
                misses += not row["passed"]
                print(
                    f"{row['notebook']:<9}{row['slider']:<34}{worst['evaluations']:12}{row['median_ms']:11.0f}"
                    f"{row['worst_ms']:10.0f}{row['limit_ms']:7}  {'pass' if row['passed'] else 'MISS'}",
                    flush=True,
                )
            measured.append(found)
    if given.json:
        about = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        given.json.write_text(json.dumps(about | {"sliders": measured}, indent=1))
    print(f"{misses} miss their limit" if misses else "all within their limits")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
