"""What README, notation and notebooks point to is there, and nothing in them was left to be filled in."""

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "data" / "README.md",
    *sorted((ROOT / "notebooks").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")),
]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository")


def text_of(page):
    if page.suffix == ".md":
        return page.read_text()
    cells = nbformat.read(page, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def anchors(page):
    """The fragments that headings of `page` answer to, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text_of(page), flags=re.DOTALL)):
        address = urlsplit(target)
        if address.scheme:
            assert address.scheme == "https", target
            assert re.fullmatch(r"[\w.-]+\.\w+", address.netloc), target
            if "edm_lesson" in target:
                assert REPOSITORY, f"{target}: pyproject.toml gives no address of the repository"
                assert urlsplit(REPOSITORY).path in address.path, f"{target} is not in {REPOSITORY}"
            continue
        there = (page.parent / unquote(address.path)).resolve() if address.path else page
        assert there.exists(), f"{page.name} links to {target}, which is not there"
        assert there.is_relative_to(ROOT), target
        if address.fragment:
            assert unquote(address.fragment).lower() in anchors(there), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_was_left_to_be_filled_in(page):
    assert not re.findall(r"@[A-Z0-9]+@|\bTODO\b|\bTBD\b", text_of(page))
