"""The course as a static site: pages without scripts that need no network, from the notebooks as they are stored.

`build` gathers the pages and what they link to, `render` turns Markdown and notebooks into HTML, `equations` TeX into
MathML. `page.html` and `style.css` are the looks. The font of the equations is the Latin, Greek and mathematical part
of STIX Two Math 2.12, cut out with fontTools; its licence, the SIL Open Font License, lies beside it.
"""

from edm_lesson.site.build import build_site

__all__ = ["build_site"]
