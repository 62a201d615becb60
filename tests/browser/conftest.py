"""Pages in a real browser. Every test that opens one fails if it logs, or asks for anything."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mapfs.report.html import write_page
from mapfs.report.tree import Keep
from tests.unit.report_source import report_on

_CHROMIUM = shutil.which("chromium")
# What keeps it from calling home. Playwright switches off its sandbox, which root cannot have.
_SWITCHES = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
_PATIENCE_MS = 60_000  # a busy machine is slow, and that is no fault
Opened = Callable[..., Page]


@pytest.fixture(scope="module")  # while it is there, an event loop is, too
def browser() -> Iterator[Browser]:
    """Debian's Chromium, with an empty profile that is gone at the end."""
    if _CHROMIUM is None:
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=_SWITCHES, timeout=_PATIENCE_MS
        )
        expect.set_options(timeout=_PATIENCE_MS)
        yield started
        started.close()


@dataclass
class Noise:
    """What a page should not have done."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens the page of a tree: `opened({"dir": {"file": 7}}, width=360, color_scheme="dark")`."""
    noise = Noise()
    path = tmp_path / "page.html"

    def open_page(tree: Any, *, most: int | None = None, width: int = 1280, **context: Any) -> Page:
        report, _ = report_on(tree, Keep(nodes=most))
        write_page(report, path)
        page = browser.new_context(viewport={"width": width, "height": 800}, **context).new_page()
        page.set_default_timeout(_PATIENCE_MS)
        page.on("console", lambda message: noise.said.append(message.text))
        page.on("pageerror", lambda error: noise.said.append(str(error)))
        page.on("request", lambda request: noise.asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in browser.contexts:
        context.close()
    assert noise.said == []
    assert set(noise.asked) <= {path.as_uri()}
