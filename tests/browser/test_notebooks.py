"""In JupyterLab every notebook runs, every control does something, and the pictures can be read by day and night.

The tests of a notebook share one page and one kernel, in this order.
"""

import nbformat

PICTURE = ".jp-Cell-outputWrapper img"
CONTROLS = ".widget-slider .noUi-handle, .widget-dropdown select, .widget-checkbox input"
# What a control is called, and the key that moves it: to its end, or to its start where it is at its end.
CONTROL = """control => {
    const name = control.closest(".jupyter-widgets").innerText.split("\\n")[0];
    if (control.matches("input")) return [name, "Space"];
    const at_end = control.matches("select")
        ? control.selectedIndex === control.options.length - 1
        : control.getAttribute("aria-valuenow") === control.getAttribute("aria-valuemax");
    return [name, at_end ? "Home" : "End"];
}"""
CHANGED = """([cell, selector, before]) =>
    complaints.length || [...cell.querySelectorAll(selector)].some(img => img.complete && img.src !== before)"""
# The top left pixel of a picture: white and opaque, whatever is behind it.
CORNER = """picture => {
    const canvas = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight).getContext("2d");
    canvas.drawImage(picture, 0, 0);
    return [...canvas.getImageData(0, 0, 1, 1).data];
}"""
# Texts whose colour is less than 3:1 apart from what is behind them (the least that WCAG asks for large text).
FAINT = """() => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    const luminance = colour => channels(colour).slice(0, 3)
        .map(value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, k) => sum + value * [0.2126, 0.7152, 0.0722][k], 0);
    const ground = node => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if ((channels(colour)[3] ?? 1) > 0.5) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const faint = [];
    const shown = ".jp-RenderedHTMLCommon *, .jp-RenderedText *, .widget-interact *";
    for (const element of document.querySelectorAll(shown)) {
        const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join("");
        if (!text || !element.checkVisibility()) continue;
        const [a, b] = [getComputedStyle(element).color, ground(element)].map(luminance);
        if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 3) faint.push(text.slice(0, 80));
    }
    return faint;
}"""


def test_it_runs_from_top_to_bottom_and_nothing_complains(notebook):
    notebook.start("notebook:run-all-cells")
    ran = notebook.finish()
    notebook.shoot("light")
    assert notebook.complaints() == []
    assert ran is True
    assert notebook.page.query_selector_all(f"{PICTURE}:not([src^='data:image/png'])") == []


def test_moving_a_control_by_keyboard_changes_the_picture_and_adds_none(notebook):
    cells = notebook.slider_cells()
    assert len(cells) == notebook.path.read_text().count("= interact("), "not every slider is in the page"
    for number, cell in enumerate(cells):
        cell.scroll_into_view_if_needed()
        assert len(cell.query_selector_all(PICTURE)) == 1, f"slider cell {number} shows more than one picture"
        controls = cell.query_selector_all(CONTROLS)
        assert controls, f"slider cell {number} has no control"
        for control in controls:
            before = cell.query_selector(PICTURE).get_attribute("src")
            name, key = control.evaluate(CONTROL)
            control.focus()
            control.press(key)
            notebook.wait(f"another picture: {name} of slider cell {number}", CHANGED, [cell, PICTURE, before])
            notebook.page.evaluate(notebook.SETTLE)
            assert notebook.complaints() == [], name
            assert len(cell.query_selector_all(PICTURE)) == 1, f"moving {name} added a picture"
        notebook.shoot(f"slider-{number}", cell)


def test_it_can_be_read_in_the_dark_theme(notebook):
    notebook.change_theme("Dark")
    notebook.shoot("dark")
    for picture in notebook.page.query_selector_all(PICTURE):
        assert picture.evaluate(CORNER) == [255, 255, 255, 255]
    assert notebook.page.evaluate(FAINT) == []


# The progress bar says "1.28k/10.0M" or so, and no longer "0.00/10.0M".
TRAINING = """() => complaints.length
    || /[1-9]\\S*[/]10.0M/.test(document.querySelector(".jp-Notebook").innerText)"""
INTERRUPTED = [
    """import torch

from edm_lesson.config import load_config
from edm_lesson.data import load_images
from edm_lesson.samplers import sample_images
from edm_lesson.training import Trainer

images = load_images("mnist")
config = load_config("smoke", ["training.images=10_000_000", "training.log_every=640"])
trainer = Trainer(config, images, "interrupted", device="cpu")""",
    "trainer.train()",
    """assert 0 < trainer.images_seen < config.training.images
samples = sample_images(trainer.ema_denoiser, 4, num_steps=3)
assert samples.isfinite().all()""",
    """resumed = Trainer(config, images, "interrupted", device="cpu").resume()
assert resumed.images_seen == trainer.images_seen
for one, other in zip(resumed.denoiser.parameters(), trainer.denoiser.parameters(), strict=True):
    assert torch.equal(one, other)
_ = resumed.train(until=resumed.images_seen + 64, progress=False)""",
]


def test_interrupting_a_training_cell_leaves_a_usable_model_and_a_resumable_checkpoint(lab, open_notebook):
    folder, _ = lab
    cells = [nbformat.v4.new_code_cell(source) for source in INTERRUPTED]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "interrupted.ipynb")
    with open_notebook("interrupted.ipynb") as page:
        page.start("notebook:run-all-cells")
        page.wait("training to begin", TRAINING)
        page.page.wait_for_timeout(2000)
        page.page.evaluate("() => jupyterapp.commands.execute('notebook:interrupt-kernel')")
        assert page.finish(60) is False
        (interruption,) = page.page.evaluate("() => complaints")
        assert interruption.startswith("KeyboardInterrupt")
        page.page.evaluate(
            "() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 2; complaints.length = 0 }"
        )
        page.start("notebook:run-all-below")
        assert page.finish(60) is True, page.complaints()
