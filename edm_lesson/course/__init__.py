"""The notebooks: run, stored, opened."""

from edm_lesson.course.kernel import execute
from edm_lesson.course.lab import NOTEBOOKS, find_notebooks, open_lab
from edm_lesson.course.run import run_course
from edm_lesson.course.store import refresh_notebooks, store_notebooks, widget_models
