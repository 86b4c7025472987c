"""The plugin that moves the notebooks' sliders finds those that do nothing, too much, or fail."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat

SETUP = """import matplotlib.pyplot as plt
from ipywidgets import IntSlider, interact
def line(height):
    figure, axis = plt.subplots()
    axis.plot([0, height])
    plt.close(figure)
    return figure
def still(height):
    return line(1)
def twice(height):
    display(line(height))
    return line(height)
def failing(height):
    return line(1 / (height - 2))"""


def test_only_a_slider_that_draws_one_new_picture_passes(tmp_path):
    cells = [
        SETUP,
        *(f"_ = interact({name}, height=IntSlider(1, 0, 2))" for name in ("line", "still", "twice", "failing")),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "sliders.ipynb")
    options = ["-p", "moving_sliders", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", "-rA", "-q"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    passed = re.findall(r"^PASSED .*::Cell (\d)$", ran.stdout, flags=re.MULTILINE)
    assert passed == ["0", "1"], ran.stdout[-3000:]
    assert "height at [0, 1, 2] gives 1 pictures" in ran.stdout
    assert "['display_data', 'display_data'] instead of one picture" in ran.stdout
    assert "ZeroDivisionError" in ran.stdout
