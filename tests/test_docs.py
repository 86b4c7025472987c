"""What the web pages take from notebooks: nothing that a stored output brings is run there, nothing else is lost."""

import json
import runpy
import sys
import types
from pathlib import Path

import pytest

from edm_lesson import course

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def to_show(monkeypatch):
    """What `docs/conf.py` does to notebooks; stand-ins for Sphinx and MyST-NB, which are installed for pages only."""
    for name, part in [("myst_nb.core.render", "NbElementRenderer"), ("sphinx.ext.autodoc.mock", "_MockObject")]:
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**{part: None}))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    return runpy.run_path(ROOT / "docs" / "conf.py")["to_show"]


def test_nothing_that_an_output_brings_is_run(to_show):
    script = "<script>alert(1)</script>"
    kinds = ["text/html", "image/svg+xml", "text/markdown", "text/latex", "application/javascript", "application/pdf"]
    kinds += ["application/vnd.jupyter.widget-view+json", "image/gif", "text/x-unheard-of", "application/json"]
    data = {**dict.fromkeys(kinds, script), "image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    outputs = [{"output_type": kind, "data": dict(data), "metadata": {}} for kind in ("display_data", "execute_result")]
    outputs.append({"output_type": "stream", "name": "stdout", "text": "1 < 2"})
    state = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": script}}}
    cells = [{"cell_type": "code", "metadata": {}, "source": "1", "outputs": outputs}]
    shown = to_show({"metadata": state, "cells": cells})
    assert "script" not in json.dumps(shown)
    pictures, text = [output for output in shown["cells"][0]["outputs"][::2]]
    assert pictures["data"] == {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    assert text["text"] == "1 < 2"


@pytest.mark.parametrize("path", course.find_notebooks(), ids=lambda path: path.stem)
def test_the_pages_show_all_of_a_notebook_but_its_set_up(to_show, path):
    stored, shown = (json.loads(path.read_text()) for _ in range(2))
    to_show(shown)
    assert [cell["source"] for cell in shown["cells"]] == [
        cell["source"] for cell in stored["cells"] if cell["id"] != "set-up"
    ]
    for cell in shown["cells"]:
        for output in cell.get("outputs", []):
            assert output.get("data", output), "nothing would be shown"
