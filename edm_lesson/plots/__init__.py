"""Pictures: pure functions from tensors to figures, in one style.

No figure is in pyplot's list, so that a notebook shows it once, and tensors may lie on any device. Images are
(B, C, H, W) in [-1, 1]; what lies outside is clipped.
"""

from edm_lesson.plots.diagrams import clouds, dashboard, field, paths, shapes
from edm_lesson.plots.images import attention, image_grid, panels, pixel_values, strip, transformed
from edm_lesson.plots.lines import bars, curve_panels, curves, dot_plot, heatmap, progress, smooth, steps

__all__ = [
    "attention",
    "bars",
    "clouds",
    "curve_panels",
    "curves",
    "dashboard",
    "dot_plot",
    "field",
    "heatmap",
    "image_grid",
    "panels",
    "paths",
    "pixel_values",
    "progress",
    "shapes",
    "smooth",
    "steps",
    "strip",
    "transformed",
]
