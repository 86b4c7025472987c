"""The code cells of notebooks as plain Python, where Jupyter may be missing: what is shown is drawn, sliders once.

`python tests/plain_notebooks.py [all | 00,07] [NAME=VALUE ...]` runs notebooks one after the other, with these
parameters, and says how long each took on which device.
"""

import ast
import json
import linecache
import os
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType, SimpleNamespace

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def show(value, **_):
    """What Jupyter does with the value of a cell, as far as it can fail; a handle, as `display` returns one."""
    picture = getattr(value, "_repr_png_", value.__repr__)
    picture()
    return SimpleNamespace(update=show)


def interact(function, **controls):
    """A slider's picture at the controls' defaults."""
    show(function(**{name: control.value for name, control in controls.items()}))
    return function


def control(value=None, *_, options=(None,), **__):
    return SimpleNamespace(value=options[0] if value is None else value)


def without_jupyter():
    """The modules that notebooks import of Jupyter, for `sys.modules`."""
    display, widgets = ModuleType("IPython.display"), ModuleType("ipywidgets")
    display.display, widgets.interact = show, interact
    for name in ("Checkbox", "Dropdown", "FloatLogSlider", "FloatSlider", "IntSlider"):
        setattr(widgets, name, control)
    return {"IPython.display": display, "ipywidgets": widgets}


def run_cells(path, parameters=(), tolerated=()):
    """Run the code cells of the notebook at `path`, in its folder, with other values for the `parameters` that it has.

    After one of the `tolerated` errors the next cell goes on. Another error gets a note that names the cell.
    """
    names = {"__name__": "__main__"}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code" or cell["id"] == "set-up":
            continue
        source, file = "".join(cell["source"]), f"{path.stem}[{number}]"
        linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        try:
            exec(compile(tree, file, "exec"), names)
            if last is not None:
                show(eval(compile(ast.Expression(last.value), file, "eval"), names))
        except tolerated:
            pass
        except Exception as error:
            error.add_note(f"in cell {number} of {path.name}")
            raise
        if "parameters" in cell["metadata"].get("tags", []):
            names |= {name: value for name, value in dict(parameters).items() if name in names}
    return names


def main():
    only, *given = sys.argv[1:]
    parameters = {name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in given)}
    sys.modules |= without_jupyter()
    os.chdir(NOTEBOOKS)
    sys.path.insert(0, str(NOTEBOOKS.parent))
    from edm_lesson.data import choose_device

    failed = []
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        if only != "all" and path.name[:2] not in only.split(","):
            continue
        started = time.perf_counter()
        try:
            run_cells(path, parameters)
        except Exception:
            traceback.print_exc()
            failed.append(path.name)
        print(f"== {path.name}: {time.perf_counter() - started:.1f} s on {choose_device()}", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
