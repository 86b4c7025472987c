"""The site in Chromium, with every other address blocked: pictures, widths, errors, keyboard, and what is folded."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "runs" / "browser" / "site"
WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
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

        def note_failure(request):
            if request.failure != "net::ERR_ABORTED":  # whoever leaves a page cancels pictures that still load
                page.faults.append(f"failed: {request.url}, {request.failure}")

        page.route("**/*", only_files)
        page.on("console", lambda message: page.faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", note_failure)
        page.goto((site / name).as_uri())
        return page

    yield open_page
    for page in opened:
        page.close()


def names(site):
    return sorted(path.name for path in site.glob("*.html"))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_shows_its_pictures_and_equations_within_its_width_and_without_errors(site, open_page, width, theme):
    found = {}
    for name in names(site):
        page = open_page(name, WIDTHS[width], theme)
        page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        page.evaluate("document.fonts.ready")
        faults = page.faults + page.evaluate(
            """() => {
                const inside = element => element.closest('pre, .wide, .equation, .side, .skip');
                const right = element => element.getBoundingClientRect().right;
                return [
                    ...[...document.images].filter(image => !image.naturalWidth).map(image => `empty: ${image.src}`),
                    ...[...document.querySelectorAll('body *')].filter(
                        element => !inside(element) && right(element) > innerWidth + 1
                    ).map(element => `too wide: ${element.outerHTML.slice(0, 80)}`),
                    ...(document.documentElement.scrollWidth > innerWidth ? ['the page scrolls sideways'] : []),
                    ...[...document.querySelectorAll('math')].filter(math => math.getBoundingClientRect().height < 10)
                        .map(math => `not drawn: ${math.getAttribute('alttext')}`),
                    ...(document.querySelector('math') && !document.fonts.check('16px Equations')
                        ? ['the font of the equations is missing'] : []),
                ];
            }"""
        )
        if faults:
            found[name] = faults
        page.screenshot(path=SHOTS / f"{Path(name).stem}-{width}-{theme}.png", full_page=True)
        page.close()
    assert not found


def test_the_keyboard_skips_to_the_text_unfolds_hints_and_goes_to_the_next_page(open_page):
    page = open_page("01_noise_and_the_ideal_denoiser.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the text"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MAIN"
    hint = page.locator("main details").first
    assert not hint.locator("p").first.is_visible()
    hint.locator("summary").focus()
    page.keyboard.press("Enter")
    assert hint.locator("p").first.is_visible()
    page.locator("footer a[rel=next]").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/02_the_sigma_schedule.html")
    assert not page.faults


def test_a_phone_has_the_contents_in_a_menu_and_a_wide_table_scrolls_by_itself(open_page):
    page = open_page("notation.html", 390)
    assert not page.locator(".side").is_visible()
    page.locator(".menu summary").click()
    page.locator(".menu a", has_text="The sigma schedule").click()
    page.wait_for_url("**/02_the_sigma_schedule.html")
    page.go_back()
    assert page.evaluate("[...document.querySelectorAll('.wide')].some(box => box.scrollWidth > box.clientWidth)")


def test_the_dark_theme_is_dark_and_figures_stay_on_white(open_page):
    page = open_page("00_tour.html", theme="dark")
    colour = "element => getComputedStyle(element).backgroundColor"
    assert page.locator("body").evaluate(colour) != "rgb(255, 255, 255)"
    assert page.locator("main img").first.evaluate(colour) == "rgb(255, 255, 255)"
