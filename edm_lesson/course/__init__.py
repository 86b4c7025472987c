"""The notebooks: run, stored, opened."""

from edm_lesson.course.run import (
    NOTEBOOKS,
    QUIET,
    SETTINGS,
    describe_widgets,
    find_notebooks,
    open_lab,
    patch_nbclient,
    refresh_notebooks,
    run_course,
    store_notebooks,
    widget_models,
)

__all__ = [
    "NOTEBOOKS",
    "QUIET",
    "SETTINGS",
    "describe_widgets",
    "find_notebooks",
    "open_lab",
    "patch_nbclient",
    "refresh_notebooks",
    "run_course",
    "store_notebooks",
    "widget_models",
]
