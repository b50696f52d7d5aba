"""The explorer as a student meets it: lesson 00 in JupyterLab, by mouse and by keyboard alone.

Texts and attributes are asserted, not pixels. ``NLCOURSE_BROWSER_NOTEBOOK`` names another notebook
to open; screenshots go to the folder that ``NLCOURSE_SCREENSHOTS`` names, else to pytest's
temporary one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

ROOT = Path(__file__).parents[1]
NOTEBOOK = Path(
    os.environ.get("NLCOURSE_BROWSER_NOTEBOOK", ROOT / "notebooks" / "00_start_here.ipynb")
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_OPTIONS = (
    "--no-sandbox",  # CI runs as root in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
)
SETTINGS = {
    # Every cell in the page, also those that are not in view, so that selectors find them.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
FIRST = 180_000  # ms: start JupyterLab, the kernel, import torch, run the lesson, on a busy machine
SOON = 30_000  # ms


def missing() -> str:
    """Say what the browser tests lack here, "" for nothing."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    if CHROMIUM is None:
        return "no chromium is installed"
    return "" if NOTEBOOK.exists() else f"{NOTEBOOK.name} is not there: run `nlcourse notebooks`"


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """JupyterLab on a free port, with a copy of the lesson; yields the lesson's address."""
    if lack := missing():
        if os.environ.get("CI"):
            pytest.fail(f"The browser tests must run in CI, but {lack}")
        pytest.skip(lack)
    home = tmp_path_factory.mktemp("lab")
    (home / "work").mkdir()
    shutil.copy(NOTEBOOK, home / "work" / NOTEBOOK.name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    log = (home / "lab.log").open("w")
    server = subprocess.Popen(
        lab_command(home / "work", port, token),
        env=lab_environment(home),
        cwd=home / "work",
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for_server(server, port, token, home / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK.name}?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.close()


def lab_command(folder: Path, port: int, token: str) -> list[str]:
    return [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",
    ]


def lab_environment(home: Path) -> dict[str, str]:
    """An environment in which the user's own Jupyter settings play no part."""
    for name, settings in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    own = {
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "IPYTHONDIR": home / "ipython",
        "NLCOURSE_PROGRESS": home / "progress.json",
        # Two threads for 8 x 8 images wait for each other on a busy machine, for minutes.
        "OMP_NUM_THREADS": "1",
    }
    # A student's first session: blank exercises do not fail.
    inherited = {k: v for k, v in os.environ.items() if k != "NLCOURSE_STRICT"}
    return inherited | {name: str(path) for name, path in own.items()}


def wait_for_server(server, port: int, token: str, log: Path) -> None:
    deadline = time.monotonic() + FIRST / 1000
    address = f"http://127.0.0.1:{port}/api/status?token={token}"
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Where screenshots go."""
    chosen = os.environ.get("NLCOURSE_SCREENSHOTS")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page(lab, pictures):
    """The lesson, open in Chromium, all its cells run."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_OPTIONS))
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(SOON)
        try:
            page.goto(lab, timeout=FIRST)
            run_all(page)
            yield page
        finally:
            page.screenshot(path=pictures / "last.png")
            browser.close()


def run_all(page) -> None:
    """Run every cell, to the end, and see the explorer."""
    page.wait_for_function("window.jupyterapp !== undefined", timeout=FIRST)
    page.evaluate("() => window.jupyterapp.restored")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=FIRST)
    page.wait_for_function(
        """() => {
            const panel = window.jupyterapp.shell.currentWidget;
            return panel?.sessionContext?.session?.kernel?.status === 'idle';
        }""",
        timeout=FIRST,
    )
    # Until the last cell: what a panel is told while a cell runs waits for that cell's end.
    page.evaluate(
        """() => {
            const { commands } = window.jupyterapp;
            commands.execute('notebook:run-all-cells').then(() => { window.allRun = true; });
        }"""
    )
    page.wait_for_function("window.allRun === true", timeout=FIRST)
    page.wait_for_selector(".nlcourse-explorer .nlcourse-figure img")


class Panel:
    """The first explorer of the lesson, found by the classes that its widgets carry."""

    def __init__(self, page) -> None:
        self.page = page
        self.box = page.locator(".nlcourse-explorer").first
        self.start = self.part("start")
        self.stop = self.part("stop")
        self.slider = self.box.locator(".nlcourse-noise-rate .noUi-handle")
        self.readout = self.box.locator(".nlcourse-noise-rate .widget-readout")
        self.track = self.box.locator(".nlcourse-noise-rate .noUi-target")
        self.image = self.part("figure").locator("figure img")
        self.caption = self.part("figure").locator("figcaption")

    def part(self, name: str):
        return self.box.locator(f".nlcourse-{name}").first

    def rate(self) -> int:
        return int(self.readout.inner_text().replace(" ", "").rstrip("%"))

    def epoch(self) -> int:
        found = re.search(r"epoch (\d+) of", self.caption.inner_text())
        return int(found[1]) if found else 0

    def set_epochs(self, number: int) -> None:
        """Type a number of epochs: a long run leaves time to press Stop."""
        readout = self.box.locator(".nlcourse-epochs .widget-readout")
        readout.fill(str(number))
        readout.press("Enter")

    def drag_to(self, share: float) -> None:
        self.track.scroll_into_view_if_needed()
        track, handle = self.track.bounding_box(), self.slider.bounding_box()
        row = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, row)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + share * track["width"], row, steps=8)
        self.page.mouse.up()

    def wait_for(self, condition: str) -> None:
        self.page.wait_for_function(
            f"""() => {{
                const box = document.querySelector('.nlcourse-explorer');
                const figure = box.querySelector('figure');
                const status = box.querySelector('.nlcourse-status').innerText;
                const caption = figure.querySelector('figcaption').innerText;
                const busy = figure.getAttribute('aria-busy') === 'true';
                return {condition};
            }}"""
        )

    def tab_to(self, name: str) -> None:
        """Press Tab until a part has the focus."""
        for _ in range(20):
            self.page.keyboard.press("Tab")
            if self.page.evaluate(f"document.activeElement.closest('.nlcourse-{name}') !== null"):
                return
        pytest.fail(f"Tab never reached {name}")


@pytest.fixture
def panel(page) -> Panel:
    return Panel(page)


def test_by_mouse_the_curve_moves_and_stop_ends_it(panel, pictures):
    before = panel.rate()
    panel.drag_to(0.75)
    panel.page.wait_for_timeout(300)
    assert panel.rate() != before
    assert 55 <= panel.rate() <= 80
    chosen = panel.rate()
    empty = panel.image.get_attribute("src")
    panel.set_epochs(120)
    panel.start.click()
    panel.wait_for("busy && /epoch \\d+ of/.test(caption)")
    first, first_epoch = panel.image.get_attribute("src"), panel.epoch()
    assert first.startswith("data:image/png;base64,")
    assert first != empty
    panel.wait_for(f"Number((/epoch (\\d+) of/.exec(caption) ?? [0, 0])[1]) > {first_epoch}")
    assert panel.image.get_attribute("src") != first
    panel.box.screenshot(path=pictures / "training.png")
    panel.stop.click()
    panel.wait_for("!busy && /Stopped after epoch/.test(status)")
    reached = panel.epoch()
    assert 1 <= reached < 120
    assert f"{chosen} %" in panel.image.get_attribute("alt")
    assert "test accuracy" in panel.caption.inner_text()
    panel.page.wait_for_timeout(500)
    assert panel.epoch() == reached


def test_by_keyboard_alone(panel, pictures):
    before = panel.rate()
    panel.slider.focus()
    panel.page.keyboard.press("ArrowLeft")
    panel.page.wait_for_timeout(300)
    assert panel.rate() == before - 5
    tries = panel.part("tries").locator("tbody tr").count()
    panel.tab_to("start")
    panel.page.keyboard.press("Enter")
    panel.wait_for("busy && /epoch \\d+ of/.test(caption)")
    panel.page.keyboard.press("Tab")
    panel.page.keyboard.press("Space")
    panel.wait_for("!busy && /Stopped after epoch/.test(status)")
    assert panel.part("tries").locator("tbody tr").count() == tries + 1
    panel.box.screenshot(path=pictures / "keyboard.png")


def test_every_control_has_a_name_and_every_picture_a_text(panel):
    names = panel.box.evaluate(
        """box => [...box.querySelectorAll('button, select, input, .noUi-handle')]
            .filter(part => part.offsetParent !== null)
            .map(part => part.ariaLabel || part.innerText || part.labels?.[0]?.innerText
                || part.closest('.widget-inline-hbox')?.querySelector('label')?.innerText || '')"""
    )
    assert len(names) >= 5
    assert all(names)
    assert len(panel.image.get_attribute("alt")) > 50
    assert panel.caption.get_attribute("aria-live") == "polite"


def test_no_cell_of_the_lesson_ended_in_an_error(page):
    errors = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']")
    assert errors.all_inner_texts() == []


def panels_in_kernel(page) -> int:
    """Return how many panels ipywidgets holds in the notebook's kernel."""
    return int(
        page.evaluate(
            """async () => {
                const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
                const panels = `len([w for w in __import__('ipywidgets').widgets.widget._instances
                    .values() if 'nlcourse-explorer' in getattr(w, '_dom_classes', ())])`;
                const asked = kernel.requestExecute({ code: '', user_expressions: { panels } });
                const reply = await asked.done;
                return reply.content.user_expressions.panels.data['text/plain'];
            }"""
        )
    )


def run_panel_cell_again(page) -> None:
    """Run the cell that makes the explorer once more."""
    page.evaluate(
        """async () => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = notebook.widgets.findIndex(
                cell => cell.model.sharedModel.getSource().includes('Explorer('));
            await window.jupyterapp.commands.execute('notebook:run-cell');
        }"""
    )


def test_a_cell_run_again_replaces_its_panel_and_ends_its_run(panel):
    held, shown = panels_in_kernel(panel.page), panel.page.locator(".nlcourse-explorer").count()
    panel.set_epochs(120)
    panel.start.click()
    panel.wait_for("busy && /epoch \\d+ of/.test(caption)")
    run_panel_cell_again(panel.page)
    panel.wait_for("!busy && /press Start/.test(caption)")
    assert panel.page.locator(".nlcourse-explorer").count() == shown
    assert panels_in_kernel(panel.page) == held
    panel.start.click()  # the new panel is alive
    panel.wait_for("/epoch \\d+ of/.test(caption)")
    panel.stop.click()
    panel.wait_for("!busy")
