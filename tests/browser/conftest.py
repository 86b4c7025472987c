"""JupyterLab with settings of its own on copies of the notebooks, and Chromium to look at them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
from playwright.sync_api import TimeoutError, sync_playwright

from edm_lesson import course

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, also those out of sight
}
LAB = """
import os, signal, sys, threading
from jupyterlab.labapp import main


def end_with_the_tests():
    sys.stdin.read()  # until the other end is closed, by whatever ended the tests
    os.kill(os.getpid(), signal.SIGTERM)


threading.Thread(target=end_with_the_tests, daemon=True).start()
main()
"""
FOLDERS = ("LAB_SETTINGS", "LAB_WORKSPACES", "_CONFIG", "_DATA", "_RUNTIME")


def pytest_addoption(parser):
    parser.addoption("--only", help="numbers of the notebooks to open, such as 00,02; default: all")


def pytest_generate_tests(metafunc):
    if "notebook" in metafunc.fixturenames:
        paths = course.find_notebooks(metafunc.config.getoption("--only"))
        metafunc.parametrize("notebook", paths, indirect=True, scope="module", ids=[path.stem for path in paths])


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """The folder with copies of the notebooks, and the address of the JupyterLab that serves it."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    shutil.copytree(course.NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name, values in SETTINGS.items():
        path = home / "LAB_SETTINGS" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    environment = os.environ | {f"JUPYTER{name}_DIR": str(home / name) for name in FOLDERS}
    environment |= {"IPYTHONDIR": str(home / "ipython"), "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "passive"}
    environment.pop("JUPYTER_PATH", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", LAB, *options],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        answers(f"{address}/api/status", server, home / "log")
        yield folder, address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
    said = [line for line in (home / "log").read_text().splitlines() if line.startswith(("[E", "Traceback"))]
    assert not said, f"JupyterLab logged {said}; all of it is in {home / 'log'}"


def answers(address, server, log, seconds=120):
    until = monotonic() + seconds
    while server.poll() is None and monotonic() < until:
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            sleep(0.2)
    raise RuntimeError(f"JupyterLab doesn't answer at {address}:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "There is no Chromium; `make test-browser` says how to get one."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def open_notebook(lab, browser):
    """Open a notebook by the name of its file: a context with its `LabPage`, whose kernel ends with it."""
    folder, address = lab

    @contextmanager
    def opened(name):
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        try:
            yield LabPage(page, f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}", folder / name)
            page.evaluate("() => jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        finally:
            page.close()

    return opened


@pytest.fixture(scope="module")
def notebook(request, open_notebook):
    """One of the course's notebooks, open and not yet run; a folder for screenshots, emptied, is its `shots`."""
    shots = ROOT / "runs" / "browser" / request.param.stem
    shutil.rmtree(shots, ignore_errors=True)
    shots.mkdir(parents=True)
    with open_notebook(request.param.name) as page:
        page.shots = shots
        yield page


class LabPage:
    """A notebook in JupyterLab. `complaints()` lists whatever page or kernel had to complain about so far."""

    KERNEL_READY = """() => {
        const session = window.jupyterapp?.shell?.currentWidget?.context?.sessionContext;
        return session?.isReady && session.session?.kernel?.status === "idle";
    }"""
    LISTEN = """() => {
        window.complaints = [];
        jupyterapp.shell.currentWidget.context.sessionContext.iopubMessage.connect((_, {header, content}) => {
            if (header.msg_type === "error") complaints.push(`${content.ename}: ${content.evalue}`);
            // Widgets ask for their like before the kernel has imported ipywidgets, which then says so.
            const stderr = header.msg_type === "stream" && content.name === "stderr";
            if (stderr && !content.text.startsWith("No such comm")) complaints.push(content.text);
        });
    }"""
    START = """command => {
        window.done = null;
        jupyterapp.commands.execute(command).then(ok => { done = ok }, error => { done = String(error) });
    }"""
    # Resolves once the kernel has answered all that was asked before, and no picture has changed for 300 ms.
    SETTLE = """async () => {
        const kernel = jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
        const pictures = () => [...document.querySelectorAll(".jp-Cell-outputWrapper img")].map(img => img.src).join();
        for (let before = null; before !== pictures(); ) {
            before = pictures();
            await kernel.requestKernelInfo();
            await new Promise(done => setTimeout(done, 300));
        }
    }"""
    SCROLLED = "document.querySelector('.jp-WindowedPanel-outer')"

    def __init__(self, page, address, path):
        self.page, self.path, self._complaints = page, path, []
        page.on("pageerror", lambda error: self._complaints.append(f"page: {error}"))
        page.on("console", lambda said: said.type == "error" and self._complaints.append(f"console: {said.text}"))
        page.goto(address)
        page.wait_for_function(self.KERNEL_READY, timeout=120_000)
        page.evaluate(self.LISTEN)
        self.change_theme("Light")  # JupyterLab remembers what it had last

    def change_theme(self, name):
        """Change to JupyterLab's theme "Light" or "Dark"."""
        self.page.evaluate(
            "name => jupyterapp.commands.execute('apputils:change-theme', {theme: `JupyterLab ${name}`})", name
        )
        self.wait(name, "name => document.body.dataset.jpThemeName === `JupyterLab ${name}`", name)

    def complaints(self):
        shown = [
            output.inner_text()
            for kind in ("stderr", "error")
            for output in self.page.query_selector_all(f'[data-mime-type="application/vnd.jupyter.{kind}"]')
        ]
        return self._complaints + self.page.evaluate("() => complaints") + shown

    def start(self, command):
        """Start one of JupyterLab's commands; `finish` waits for it."""
        self.page.evaluate(self.START, command)

    def finish(self, seconds=1800):
        """Wait for the command that was started: whether it succeeded."""
        self.wait("the command to end", "() => window.done !== null", seconds=seconds)
        self.page.evaluate(self.SETTLE)
        return self.page.evaluate("() => window.done")

    def wait(self, what, condition, argument=None, seconds=120):
        """Wait until `condition` holds in the page."""
        try:
            self.page.wait_for_function(condition, arg=argument, timeout=1000 * seconds)
        except TimeoutError:
            raise AssertionError(f"waited {seconds} s for {what}") from None

    def slider_cells(self):
        return self.page.query_selector_all(".jp-CodeCell:has(.jp-Cell-outputWrapper .widget-interact)")

    def shoot(self, name, element=None):
        """A screenshot of an element, or of the whole notebook, a window at a time."""
        if element is not None:
            element.evaluate("element => element.scrollIntoView()")
            element.screenshot(path=self.shots / f"{name}.png")
            return
        height, window = self.page.evaluate(f"() => [{self.SCROLLED}.scrollHeight, {self.SCROLLED}.clientHeight]")
        for number, top in enumerate(range(0, height, window - 60)):
            self.page.evaluate(f"top => {{ {self.SCROLLED}.scrollTop = top }}", top)
            self.page.wait_for_timeout(150)
            self.page.screenshot(path=self.shots / f"{name}-{number:02d}.png")
