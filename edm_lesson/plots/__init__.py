"""Pictures: pure functions from tensors to figures, in one style.

No figure is in pyplot's list, so that a notebook shows it once, and tensors may lie on any device. Images are
(B, C, H, W) in [-1, 1]; what lies outside is clipped.
"""

from edm_lesson.plots.images import clouds, field, histograms, image_grid, panels, shapes, strip, transformed
from edm_lesson.plots.lines import curve_panels, curves, dashboard, dot_plot, heatmap, paths, steps
