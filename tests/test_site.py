"""The site holds the whole course: pages that lead to each other, pictures with words, equations; nothing fetched."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from matplotlib.colors import to_rgb

from edm_lesson import LessonError
from edm_lesson.course import run as course
from edm_lesson.site import build_site
from edm_lesson.site.build import HERE
from edm_lesson.site.equations import equation
from edm_lesson.site.render import Page, render_markdown, render_notebook

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAADCAAAAAC4HznGAAAADklEQVR4nGNgAAMGKAUAAB8AAWlrjWEAAAAASUVORK5CYII="
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """The elements of a page as (tag, attributes), the ids, the words outside tags, and what was never closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.ids, self.words, self.open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, words):
        self.words.append(words)

    def every(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("the site")
    build_site(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path.name: Reader(path.read_text(encoding="utf-8")) for path in sorted(site.glob("*.html"))}


def test_there_is_a_page_for_every_notebook_and_its_file_for_the_notation_and_the_first_page(site, pages):
    notebooks = course.find_notebooks()
    assert set(pages) == {f"{path.stem}.html" for path in notebooks} | {"index.html", "notation.html", "data.html"}
    for path in notebooks:
        assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()
        (download,) = [link["href"] for link in pages[f"{path.stem}.html"].every("a") if "download" in link]
        assert download == f"notebooks/{path.name}"


def test_nothing_is_fetched_from_elsewhere_and_no_script_is_run(site, pages):
    for name, page in pages.items():
        assert not page.every("script"), name
        assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes), name
        for tag, attributes in page.elements:
            fetched = [attributes.get(key) for key in ("src", "srcset", "poster", "data")]
            fetched += [attributes.get("href")] if tag == "link" and attributes["rel"] != "prev" else []
            for address in filter(None, fetched):
                assert urlsplit(address).scheme in ("", "data"), f"{name} fetches {address}"
    for address in re.findall(r"url\(\"?([^)\"]+)|@import\s+(\S+)", (site / "style.css").read_text()):
        assert (site / "".join(address)).exists(), f"style.css fetches {address}"


def test_every_link_leads_to_a_page_or_file_and_every_fragment_to_a_heading(site, pages):
    for name, page in pages.items():
        assert len(set(page.ids)) == len(page.ids), f"{name}: an id is there twice"
        for link in page.every("a") + page.every("link"):
            address = urlsplit(link["href"])
            if address.scheme:
                assert address.scheme in ("https", "data"), link
                continue
            there = unquote(address.path) or name
            assert (site / there).is_file(), f"{name} links to {there}"
            if address.fragment:
                assert unquote(address.fragment) in pages[there].ids, f"{name}: {link['href']}"
            assert not there.endswith((".md", ".ipynb")) or "download" in link or there.startswith("files/"), link


def test_each_page_leads_to_the_one_before_to_the_one_after_and_to_all_others(pages):
    order = ["index.html", *[f"{path.stem}.html" for path in course.find_notebooks()], "notation.html", "data.html"]
    for number, name in enumerate(order):
        ways = {link["rel"]: link["href"] for link in pages[name].every("a") if "rel" in link}
        expected = {"prev": order[number - 1]} if number else {}
        assert ways == expected | ({"next": order[number + 1]} if number + 1 < len(order) else {})
        assert set(order) <= {link["href"] for link in pages[name].every("a")}
        here = [link["href"] for link in pages[name].every("a") if link.get("aria-current") == "page"]
        assert set(here) == {name}


def test_each_page_has_a_title_of_its_own_its_landmarks_and_headings_in_order(site, pages):
    titles = {name: re.search("<title>(.*)</title>", (site / name).read_text(encoding="utf-8"))[1] for name in pages}
    assert len(set(titles.values())) == len(titles)
    for name, page in pages.items():
        assert page.open == [], f"{name}: {page.open} were never closed"
        assert page.every("html")[0]["lang"].startswith("en")
        assert len(page.every("main")) == len(page.every("header")) == len(page.every("footer")) == 1
        depths = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert depths.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(depths)), (name, depths)
        anchors = {f"#{attributes['id']}" for tag, attributes in page.elements if tag in ("h2", "h3")}
        assert anchors <= {link["href"] for link in page.every("a")}, f"{name}: a section is not in the contents"


def test_every_picture_is_there_has_its_size_and_says_what_it_shows(site, pages):
    for path in course.find_notebooks():
        stored = len(re.findall('"image/png": "', path.read_text(encoding="utf-8")))
        assert len(pages[f"{path.stem}.html"].every("img")) == stored, f"{path.name}: a picture is missing"
    for name, page in pages.items():
        for image in page.every("img"):
            assert (site / unquote(image["src"])).is_file()
            assert len(image["alt"]) > 10, f"{name}: {image}"
            if image["src"].startswith("pictures/"):
                assert int(image["width"]) > 100
                assert int(image["height"]) > 30


def test_every_equation_is_drawn(pages):
    for path in course.find_notebooks():
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        page = pages[f"{path.stem}.html"]
        assert len(page.every("math")) == len(re.findall(r"\$\$.+?\$\$", text, flags=re.DOTALL))
        assert all(math["alttext"] for math in page.every("math"))
        assert not re.search(r"\$\$|\\[a-z]+\{", "".join(page.words).replace(r"\n", "")), path.name


def test_hints_and_solutions_are_folded_and_rendered(site, pages):
    folded = 0
    for path in course.find_notebooks():
        page = (site / f"{path.stem}.html").read_text(encoding="utf-8")
        for inside in re.findall(r"<details>\s*<summary>(.*?)</details>", page, flags=re.DOTALL):
            folded += 1
            assert re.search(r"</summary>.*<(p|pre|ul|div)\b", inside, flags=re.DOTALL), inside[:200]
            assert not re.search(r"```|`\w", inside), f"{path.name}: {inside[:200]}"
    assert folded > 20


def test_no_line_that_begins_with_a_number_has_become_a_list_of_one(site, pages):
    for name in pages:
        page = (site / name).read_text(encoding="utf-8")
        alone = [items for items in re.findall(r"<ol>(.*?)</ol>", page, flags=re.DOTALL) if items.count("<li>") < 2]
        assert not alone, f"{name}: {alone[0][:100]}"


@pytest.mark.parametrize(
    ("tex", "part"),
    [
        (r"n \sim \mathcal N(0, 1)", "<mi>𝒩</mi>"),
        (r"\mathbb E[y]", "<mi>𝔼</mi>"),
        (r"\Big\| F \Big\|^2", '<msup><mrow><mo minsize="1.623em"'),
        (r"\ln\sigma", '<mi>ln</mi><mspace width="0.167em" /><mi>σ</mi>'),
        (r"\sin^2(t)", "<msup><mi>sin</mi><mn>2</mn></msup><mo"),
        (r"2\ln t", '<mn>2</mn><mspace width="0.167em" /><mi>ln</mi>'),
        (r"\sigma' s", '<mrow><mi>σ</mi><mo lspace="0" rspace="0">′</mo></mrow>'),
        (r"d'_i", '<msub><mrow><mi>d</mi><mo lspace="0" rspace="0">′</mo></mrow><mi>i</mi></msub>'),
        (r"a < b", 'alttext="a &lt; b"'),
    ],
)
def test_equations_are_drawn_as_in_a_book(tex, part):
    assert part in equation(tex)


@pytest.mark.parametrize("tex", [r"\sigmma", r"\begin{aligned} a &= b \end{aligned}"])
def test_an_equation_that_cannot_be_drawn_is_refused_instead_of_shown_in_part(tex):
    with pytest.raises(ValueError, match="The equation"):
        equation(tex)


def rendered(text):
    page = Page("page.html")
    render_markdown(text, page)
    return page


def test_code_and_prices_are_no_equations():
    page = rendered("`$HOME$` and `a$b$`, from $5 to $10, but $\\sigma$.\n\n```bash\necho $$x$$\n```\n")
    assert page.html.count("<math") == 1
    assert "<code>$HOME$</code>" in page.html
    assert "from $5 to $10" in page.html
    assert "$$x$$" in re.sub("<[^>]+>", "", page.html)


def test_text_right_below_an_equation_is_still_markdown():
    assert "<em>where</em>" in rendered("It is\n$$x = y$$\n*where* y is").html


def test_headings_of_the_same_words_have_anchors_of_their_own():
    page = rendered("# A `b` – c\n\n## Try it\n\n## Try it\n\n## Try it\n")
    assert [anchor for _, anchor, _ in page.headings] == ["a-b--c", "try-it", "try-it-1", "try-it-2"]


def widgets(**models):
    """A notebook whose only cell shows the widget `root` of `models`, {name: (kind, state)}."""
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "root"}, "text/plain": "interactive(…)"}
    cell = nbformat.v4.new_code_cell("interact(draw)", outputs=[nbformat.v4.new_output("display_data", view)])
    state = {name: {"model_name": kind, "state": state} for name, (kind, state) in models.items()}
    return nbformat.v4.new_notebook(
        cells=[cell],
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": state}}},
    )


def test_a_slider_shows_its_stored_picture_its_settings_and_how_it_moves():
    picture = {
        "output_type": "display_data",
        "data": {"image/png": PNG},
        "metadata": {"image/png": {"alt": "a <digit>"}},
    }
    page = Page("02.html")
    notebook = widgets(
        root=("VBoxModel", {"children": ["IPY_MODEL_sigma", "IPY_MODEL_solver", "IPY_MODEL_on", "IPY_MODEL_picture"]}),
        sigma=("FloatLogSliderModel", {"description": "sigma", "value": 0.5012, "readout_format": ".3g"}),
        solver=("DropdownModel", {"description": "solver", "index": 1, "_options_labels": ["Euler", "Heun"]}),
        on=("CheckboxModel", {"description": "centre", "value": False}),
        picture=("OutputModel", {"outputs": [picture]}),
    )
    render_notebook(notebook, page)
    assert '<img src="pictures/02-01.png" alt="a &lt;digit&gt;" width="2" height="3"' in page.html
    words = re.sub("<[^>]+>", "", page.html)
    assert "Shown for sigma = 0.501, solver = Heun, centre = off; in JupyterLab it moves with its controls." in words
    assert "interactive(" not in words
    assert list(page.pictures) == ["pictures/02-01.png"]


def test_a_progress_bar_shows_its_last_words():
    page = Page("00.html")
    notebook = widgets(
        root=("HBoxModel", {"children": ["IPY_MODEL_left", "IPY_MODEL_bar", "IPY_MODEL_right"]}),
        left=("HTMLModel", {"value": "100%"}),
        bar=("FloatProgressModel", {"value": 1.0}),
        right=("HTMLModel", {"value": " 32k [01:33&lt;00:00]"}),
    )
    course.describe_widgets(notebook)
    render_notebook(notebook, page)
    assert '<pre class="output">100% 32k [01:33&lt;00:00]</pre>' in page.html


def test_what_was_printed_piece_by_piece_is_one_output():
    pieces = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("a < b\n", "c\n")]
    page = Page("00.html")
    render_notebook(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=pieces)]), page)
    assert '<pre class="output">a &lt; b\nc</pre>' in page.html


def test_a_picture_without_words_is_named_after_its_section():
    output = nbformat.v4.new_output("display_data", {"image/png": PNG})
    cells = [nbformat.v4.new_markdown_cell("## A & B"), nbformat.v4.new_code_cell("draw()", outputs=[output])]
    page = Page("00.html")
    render_notebook(nbformat.v4.new_notebook(cells=cells), page)
    assert 'alt="Figure in the section “A &amp; B”"' in page.html


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A course of one page: `write` gives its README other words, `build` makes the site."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One")]), notebooks / "00_one.ipynb")
    monkeypatch.setattr(course, "NOTEBOOKS", notebooks)
    (tmp_path / "README.md").write_text("# Course\n")
    return SimpleNamespace(
        root=tmp_path,
        write=(tmp_path / "README.md").write_text,
        build=lambda: build_site(tmp_path / "site").read_text(encoding="utf-8"),
    )


def test_links_to_notebooks_become_links_to_pages_and_files_are_copied(small):
    (small.root / "settings.yaml").write_text("batch_size: 32\n")
    (small.root / "large.bin").write_bytes(b"0" * 1_000_001)
    small.write(
        "[one](notebooks/00_one.ipynb#one) [set](settings.yaml) [all](notebooks) [big](large.bin) [x](https://a.b)"
    )
    page = small.build()
    assert '<a href="00_one.html#one">one</a>' in page
    assert '<a href="files/settings.yaml">set</a>' in page
    assert (small.root / "site" / "files" / "settings.yaml").read_text() == "batch_size: 32\n"
    assert "all big" in re.sub("<[^>]+>", "", page), "what is not in the site keeps its words"
    assert not (small.root / "site" / "files" / "large.bin").exists()
    assert '<a href="https://a.b">x</a>' in page


@pytest.mark.parametrize(
    "badge",
    [
        "[![Open in Colab](https://colab.example/badge.svg)](https://colab.example/00)",
        '<a href="https://colab.example/00"><img src="https://colab.example/badge.svg" alt="Open in Colab"/></a>',
    ],
)
def test_a_badge_is_not_fetched_but_becomes_a_link_of_words(small, badge):
    small.write(badge)
    assert '<a href="https://colab.example/00">Open in Colab</a>' in small.build()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gone](notebooks/99_gone.ipynb)", "README.md: it links to notebooks/99_gone.ipynb, which is not there"),
        ("[out](../secret.txt)", "README.md: it links to ../secret.txt, which is not there"),
        ("$$\\sigmma$$", "README.md: The equation"),
    ],
)
def test_what_cannot_be_shown_is_refused_naming_the_page(small, text, message):
    (small.root.parent / "secret.txt").write_text("secret")
    small.write(text)
    with pytest.raises(LessonError, match=re.escape(message)):
        small.build()
    assert not (small.root / "site").exists()


def test_a_new_site_replaces_the_old_one_but_nothing_else(small):
    small.build()
    (small.root / "site" / "00_old.html").write_text("an old page")
    small.build()
    assert not (small.root / "site" / "00_old.html").exists()
    with pytest.raises(LessonError, match="holds something else than a site"):
        build_site(small.root / "notebooks")
    assert (small.root / "notebooks" / "00_one.ipynb").exists()


def test_the_command_says_what_to_open(small, run):
    code, out, error = run("site", "--out", small.root / "pages")
    assert (code, error) == (0, "")
    assert str(small.root / "pages" / "index.html") in out
    code, _, error = run("site", "--out", small.root / "notebooks")
    assert "something else than a site" in error


def colours(theme):
    """The colours of the style sheet under :root, {name: relative luminance}; those of the dark theme come second."""
    values = re.findall(r":root \{(.*?)\}", (HERE / "style.css").read_text(), flags=re.DOTALL)[theme]

    def luminance(colour):
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    return {name: luminance(colour) for name, colour in re.findall(r"--(\w+): (#\w+);", values)}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_stand_out_from_their_background(theme):
    found = colours(theme)
    for name in ("text", "quiet", "link", "keyword", "string", "number", "name", "builtin"):
        for background in ("page", "panel"):
            dark, light = sorted([found[name], found[background]])
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{name} on {background}"
