"""The pages that `make site` wrote, in Chromium with every other address blocked."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from edm_lesson.course import find_notebooks

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "runs" / "browser" / "site"
# A page's links, pictures, words outside code, and what of it is wrong.
LOOK = """() => {
    const all = query => [...document.querySelectorAll(query)];
    const right = element => element.getBoundingClientRect().right;
    const inside = element => element.closest('pre, .table-wrapper, mjx-container, aside, .visually-hidden, .sig');
    return {
        ids: all('[id]').map(element => element.id),
        links: all('a[href]').map(element => element.href),
        equations: all('mjx-container svg').length,
        faults: [
            ...all('article img').filter(image => !image.naturalWidth).map(image => `empty: ${image.outerHTML}`),
            ...all('article img').filter(image => !image.alt.trim()).map(image => `no words: ${image.src}`),
            ...all('[data-mml-node=merror], .math:not(:has(mjx-container))').map(math => `not set: ${math.outerHTML}`),
            ...all('article *').filter(element => !inside(element) && right(element) > innerWidth + 1)
                .map(element => `too wide: ${element.outerHTML.slice(0, 80)}`),
            ...(document.documentElement.scrollWidth > innerWidth ? ['the page scrolls sideways'] : []),
            ...all('article :is(p, li, td)').map(element => element.innerText)
                .filter(words => /\\$|kernel connection|IPY_MODEL|model_id/.test(words)).map(words => `raw: ${words}`),
        ],
    };
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    assert (ROOT / "site" / "index.html").exists(), "make site builds the pages"
    return shutil.copytree(ROOT / "site", tmp_path_factory.mktemp("a site with ümläuts") / "site")


@pytest.fixture
def open_page(site, browser):
    """Open a page by its name, at a width, in a theme; `page.faults` gathers errors and foreign requests."""
    opened = []

    def open_page(name, width=1280, theme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        opened.append(page)
        page.faults = []

        def only_files(route):
            if route.request.url.startswith(("file:", "data:")):
                return route.continue_()
            page.faults.append(f"asked for {route.request.url}")
            return route.abort()

        page.route("**/*", only_files)
        page.on("console", lambda message: page.faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        address, _, query = name.partition("?")
        page.goto(f"{(site / address).as_uri()}?{query}" if query else (site / address).as_uri())
        page.wait_for_function("!window.MathJax || MathJax.startup?.promise")
        page.evaluate("window.MathJax && MathJax.startup.promise")
        page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        return page

    yield open_page
    for page in opened:
        page.close()


def names(site):
    paths = [path.relative_to(site).as_posix() for path in site.rglob("*.html")]
    return sorted(name for name in paths if not name.startswith(("_", "search", "genindex", "py-modindex")))


def test_every_page_is_whole_and_every_link_leads_somewhere(site, open_page):
    found, seen = {}, {}
    for name in names(site):
        page = open_page(name)
        seen[name] = page.evaluate(LOOK)
        found[name] = page.faults + seen[name]["faults"]
        page.screenshot(path=SHOTS / f"{name.replace('/', '-')}.png", full_page=True)
        page.close()
    for name, page in seen.items():
        for link in set(page["links"]):
            address, fragment = urldefrag(link)
            if urlsplit(address).scheme != "file":
                continue
            there = Path(unquote(urlsplit(address).path))
            other = there.relative_to(site).as_posix()
            if not there.is_file() or (fragment and other in seen and unquote(fragment) not in seen[other]["ids"]):
                found[name].append(f"links to {other}#{fragment}, which is not there")
    assert not {name: faults for name, faults in found.items() if faults}
    pages = {f"notebooks/{path.stem}.html" for path in find_notebooks()}
    assert pages | {"index.html", "api.html", "notebooks/notation.html", "api/edm_lesson.samplers.html"} <= set(seen)
    assert sum(seen[name]["equations"] for name in pages) >= 30


@pytest.mark.parametrize(("width", "theme"), [(1280, "dark"), (390, "light")])
def test_a_notebook_and_the_notation_fit_a_phone_and_dark_pages_are_dark(open_page, width, theme):
    for name in ["index", "notebooks/03_preconditioning", "notebooks/notation", "api/edm_lesson.samplers"]:
        page = open_page(f"{name}.html", width, theme)
        assert not page.faults + page.evaluate(LOOK)["faults"], name
        color = "element => getComputedStyle(element).backgroundColor"
        assert (page.locator("body").evaluate(color) == "rgb(255, 255, 255)") == (theme == "light")
        for image in page.locator(".cell_output img").all()[:3]:
            assert image.evaluate(color) == "rgb(255, 255, 255)", "figures are drawn on white"
        page.screenshot(path=SHOTS / f"{name.replace('/', '-')}-{width}-{theme}.png")


def test_a_solution_unfolds_and_the_next_page_follows(open_page):
    page = open_page("notebooks/01_noise_and_the_ideal_denoiser.html")
    hint = page.locator("article details").first
    assert not hint.locator("p, pre").first.is_visible()
    hint.locator("summary").focus()
    page.keyboard.press("Enter")
    assert hint.locator("p, pre").first.is_visible()
    page.locator("a.next-page").click()
    page.wait_for_url("**/02_*.html")
    assert not page.faults


@pytest.mark.parametrize(("words", "expected"), [("churn", "add_churn"), ("preconditioning", "03_preconditioning")])
def test_the_search_finds_the_course_and_the_api(open_page, words, expected):
    page = open_page(f"search.html?q={words}")
    page.wait_for_selector("#search-results li a")
    page.wait_for_function("/found/i.test(document.querySelector('.search-summary').innerText)")
    links = page.evaluate("[...document.querySelectorAll('#search-results li a')].map(link => link.href)")
    assert any(re.search(expected, link) for link in links), links


def test_the_api_says_what_functions_and_classes_take_whatever_decorates_them(open_page):
    page = open_page("api/edm_lesson.samplers.html")
    assert "latents: Tensor" in page.locator("[id='edm_lesson.samplers.edm_sampler']").inner_text()
    page = open_page("api/edm_lesson.preconditioning.html")
    assert "sigma_data: float = 0.5" in page.locator("[id='edm_lesson.preconditioning.EDMPrecond']").inner_text()
