"""Gathering the site: every page with its neighbours, links between them, and the files that they point to."""

import re
import shutil
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from edm_lesson import LessonError
from edm_lesson.course import run as course
from edm_lesson.site.render import Page, render_markdown, render_notebook

HERE = Path(__file__).parent
STYLE = ("style.css", "STIXTwoMath-subset.woff2", "STIXTwoMath-LICENSE.txt")
MARK = '<meta name="generator" content="edm-lesson site">'
LARGEST_FILE = 1_000_000


def build_site(out="site"):
    """Write the course as a static site into the folder `out`, in place of an earlier one; returns its first page.

    Raises `LessonError` for a folder that holds something else, and for links and equations that lead nowhere.
    """
    out, root = Path(out), course.NOTEBOOKS.parent
    _empty(out)
    sources = [
        root / "README.md",
        *course.find_notebooks(),
        course.NOTEBOOKS / "notation.md",
        root / "data" / "README.md",
    ]
    names = {source.resolve(): _name(source, root) for source in sources if source.exists()}
    pages, files = [], {}
    for source, name in names.items():
        page = Page(name)
        try:
            _render(source, page)
            page.html = _Links(source, page, names, root, files).rewrite(page.html)
        except ValueError as error:
            raise LessonError(f"{source.relative_to(root)}: {error}") from error
        if source.suffix == ".ipynb":
            page.notebook = f"notebooks/{source.name}"
            files[page.notebook] = source
        pages.append(page)

    out.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages):
        before, after = pages[number - 1] if number else None, pages[number + 1] if number + 1 < len(pages) else None
        (out / page.name).write_text(_layout(page, pages, before, after), encoding="utf-8")
        for name, png in page.pictures.items():
            _write(out / name, png)
    for name, source in files.items():
        _write(out / name, source.read_bytes())
    for name in STYLE:
        shutil.copyfile(HERE / name, out / name)
    return out / "index.html"


def _empty(out):
    first = out / "index.html"
    if out.exists() and any(out.iterdir()):
        if not first.exists() or MARK not in first.read_text(encoding="utf-8"):
            raise LessonError(f"{out} holds something else than a site; choose another folder.")
        shutil.rmtree(out)


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _name(source, root):
    """The page of a notebook or text: README.md is the first page, a folder's README has the folder's name."""
    if source.stem == "README":
        return "index.html" if source.parent == root else f"{source.parent.name}.html"
    return f"{source.stem}.html"


def _render(source, page):
    if source.suffix == ".ipynb":
        import nbformat

        render_notebook(nbformat.read(source, as_version=4), page)
    else:
        render_markdown(source.read_text(encoding="utf-8"), page)


class _Links:
    """The links and pictures of one page: to other pages, to copied files (gathered in `files`), or out of the site."""

    def __init__(self, source, page, names, root, files):
        self.source, self.page, self.names, self.root, self.files = source, page, names, root.resolve(), files

    def rewrite(self, html):
        html = re.sub(r'<img\b[^>]*\bsrc="([^"]*)"[^>]*>', self._image, html)
        return re.sub(r'<a\b[^>]*\bhref="([^"]*)"[^>]*>(.*?)</a>', self._link, html, flags=re.DOTALL)

    def _image(self, found):
        tag, address = found[0], unescape(found[1])
        if urlsplit(address).scheme:  # nothing is fetched: a badge becomes its words
            words = re.search(r'\balt="([^"]*)"', tag)
            return words[1] if words else ""
        if address in self.page.pictures:
            return tag
        name = self._copy(address)
        if name is None:
            raise ValueError(f"the picture {address} is too large for the site; shrink it below 1 MB.")
        return tag.replace(found[1], escape(name))

    def _link(self, found):
        address, words = unescape(found[1]), found[2]
        if urlsplit(address).scheme:
            return f'<a href="{found[1]}">{words}</a>'
        path, fragment = urlsplit(address).path, urlsplit(address).fragment
        name = self.names.get((self.source.parent / unquote(path)).resolve()) if path else ""
        if name is None:
            name, fragment = self._copy(path), ""
        if name is None:
            return words
        return f'<a href="{escape(name)}{"#" + escape(fragment) if fragment else ""}">{words}</a>'

    def _copy(self, address):
        """The name of a copied file; None for a folder or a large file. Raises `ValueError` where there is none."""
        path = (self.source.parent / unquote(address)).resolve()
        if not path.exists() or not path.is_relative_to(self.root):
            raise ValueError(f"it links to {address}, which is not there.")
        if path.is_dir() or path.stat().st_size > LARGEST_FILE:
            return None
        name = f"files/{path.relative_to(self.root).as_posix()}"
        self.files[name] = path
        return quote(name)


def _layout(page, pages, before, after):
    from jinja2 import Template

    template = Template((HERE / "page.html").read_text(encoding="utf-8"), autoescape=True, trim_blocks=True)
    return template.render(page=page, pages=pages, before=before, after=after)
