"""Pictures: pure functions from tensors to figures, in one style.

Every function closes the figure that it returns, so that a notebook shows it once. Images are
(B, C, H, W) in [-1, 1]; what lies outside is clipped.
"""

import gc

from edm_lesson.plots.diagrams import clouds, dashboard, field, flows, paths, shapes
from edm_lesson.plots.images import attention, denoising, image_grid, maps, panels, pixel_values, strip, transformed
from edm_lesson.plots.lines import (
    bars,
    compared,
    curve_panels,
    curves,
    heatmap,
    measured,
    progress,
    smooth,
    steps,
    training_levels,
)
from edm_lesson.plots.style import figure, show_image

__all__ = [
    "attention",
    "bars",
    "clouds",
    "compared",
    "curve_panels",
    "curves",
    "dashboard",
    "denoising",
    "field",
    "figure",
    "flows",
    "heatmap",
    "image_grid",
    "maps",
    "measured",
    "panels",
    "paths",
    "pixel_values",
    "progress",
    "shapes",
    "show_image",
    "smooth",
    "steps",
    "strip",
    "training_levels",
    "transformed",
]

# What is imported by now stays. Searched for garbage, as every new picture has it done, it would hold up a slider for a
# quarter of a second.
gc.freeze()
