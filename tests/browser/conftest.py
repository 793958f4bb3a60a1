"""Pages in a real browser: the system's Chromium, driven by Playwright. Without either, these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
Open = Callable[..., "object"]


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine; CONTRIBUTING.md says how to get it")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser) -> Iterator[Open]:
    """Opens a file: open_page(path, width=390, scheme="dark", place="step=2").

    In the end no page may have complained, opened a dialog or another page, asked for anything but its own file, or be
    wider than the window.
    """
    opened = []

    def show(path: Path, *, width: int = 1280, scheme: str = "light", place: str = ""):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        complaints: list[str] = []
        requests: list[str] = []
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("popup", lambda other: complaints.append(f"another page: {other.url}"))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri() + (f"#{place}" if place else ""))
        opened.append((context, tab, complaints, requests, path, width))
        return tab

    yield show
    for context, tab, complaints, requests, path, width in opened:
        assert complaints == []
        assert [url for url in requests if not url.startswith((path.as_uri(), "blob:"))] == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        context.close()
