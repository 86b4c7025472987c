"""Pictures: pure functions from tensors to figures, in one style.

No figure is in pyplot's list, so that a notebook shows it once, and tensors may lie on any device. Images are
(B, C, H, W) in [-1, 1]; what lies outside is clipped.
"""

from edm_lesson.plots.diagrams import clouds, dashboard, field, flows, paths, shapes
from edm_lesson.plots.images import attention, denoising, image_grid, maps, panels, pixel_values, strip, transformed
from edm_lesson.plots.lines import (
    bars,
    curve_panels,
    curves,
    dot_plot,
    heatmap,
    progress,
    smooth,
    steps,
    training_levels,
)
from edm_lesson.plots.style import Figure, figure, show_image

__all__ = [
    "Figure",
    "attention",
    "bars",
    "clouds",
    "curve_panels",
    "curves",
    "dashboard",
    "denoising",
    "dot_plot",
    "field",
    "figure",
    "flows",
    "heatmap",
    "image_grid",
    "maps",
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
