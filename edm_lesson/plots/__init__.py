"""Pictures: pure functions from tensors to figures, in one style.

No figure is in pyplot's list, so that a notebook shows it once, and tensors may lie on any device. Images are
(B, C, H, W) in [-1, 1]; what lies outside is clipped.
"""

from edm_lesson.plots.diagrams import clouds, dashboard, field, paths, shapes
from edm_lesson.plots.images import attention, image_grid, panels, pixel_values, strip, transformed
from edm_lesson.plots.lines import bars, curve_panels, curves, dot_plot, heatmap, progress, smooth, steps
