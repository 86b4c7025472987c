"""`python -m edm_lesson` is `edm-lesson`."""

from edm_lesson.cli import main

main()
