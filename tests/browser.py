"""A real browser for tests of the page: Chromium, what it must never do, and what axe-core finds."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.places import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = ROOT / "build" / "page"
GRAVE = ("serious", "critical")
Open = Callable[..., Any]
DROP = """([at, name, type, bytes]) => {
    const raw = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([raw], name, { type }));
    const fire = (node, kind) => node.dispatchEvent(
        new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));
    fire(document.body, "dragenter");
    fire(document.querySelector(at), "dragover");
    fire(document.querySelector(at), "drop");
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, once for a module; a test that asks for it is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install chromium")
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", *fake]
        )
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Opens a page; in the end it must have told no error and asked no other host.

    ``refused`` are the statuses that a test provokes, of which Chromium writes a line by itself.
    """
    told: list[str] = []
    pages = []

    def visit(
        url: str, *, size: tuple[int, int] = (1280, 900), refused: tuple[int, ...] = (), **how: Any
    ) -> Any:
        page = browser.new_page(
            viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce", **how
        )
        pages.append(page)
        known = re.compile("|".join([f"status of {status}" for status in refused] or ["(?!)"]))
        page.on(
            "console",
            lambda m: m.type in ("error", "warning") and not known.search(m.text) and told.append(m.text),
        )
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda r: _elsewhere(r.url, url) and told.append(f"asked {r.url}"))
        page.set_default_timeout(60_000)
        page.goto(url)
        return page

    yield visit
    for page in pages:
        page.close()
    assert not told


def _elsewhere(asked: str, url: str) -> bool:
    return urlsplit(asked).scheme not in ("data", "blob") and urlsplit(asked).netloc != urlsplit(url).netloc


def drop(page: Any, at: str, file: Path, kind: str) -> None:
    """Drop a file of this media type on what a selector finds."""
    page.evaluate(DROP, [at, file.name, kind, base64.b64encode(file.read_bytes()).decode()])


def ask(page: Any, words: str) -> None:
    """Recall by words, and wait for the answer."""
    page.get_by_label("Words to recall by").fill(words)
    page.keyboard.press("Enter")
    page.locator(".likely").first.wait_for()
    settled(page)


def settled(page: Any) -> None:
    """Wait for the answer to the latest request."""
    page.wait_for_timeout(300)
    page.locator("#results:not([aria-busy])").wait_for()


def shot(page: Any, name: str) -> None:
    """Keep a screenshot under ``build/page``."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=SHOTS / f"{name}.png")


def violations(page: Any) -> list[str]:
    """What axe-core finds serious or critical."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    found = axe.Axe().run(page).response["violations"]
    return [f"{v['id']}: {[n['target'] for n in v['nodes']]}" for v in found if v["impact"] in GRAVE]
