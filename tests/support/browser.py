"""A Chromium for the tests of the page, driven by Playwright; axe; what a test does with a page."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.support.installs import alone, missing, npm_packages
from tests.support.service import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
TOOLS = ROOT / "tools" / "web"
TIMEOUT_MS = 60_000
"""A busy machine is slow; only a test that fails ever waits so long."""

MISSING_CHROMIUM = "The tests of the page need Chromium: apt-get install chromium"
MISSING_AXE = "The accessibility tests need Node.js and npm, which fetch axe-core"


def chromium() -> str:
    """The path of Chromium; root gets it from apt when there is none."""
    with alone("chromium"):
        path = next(filter(None, map(shutil.which, NAMES)), None)
        if path is None and os.geteuid() == 0 and shutil.which("apt-get"):
            for command in (("update",), ("install", "--yes", "chromium")):
                subprocess.run(["apt-get", "-qq", *command], check=False, capture_output=True)
            path = shutil.which("chromium")
    if path is None:
        missing(MISSING_CHROMIUM)
    return str(path)


def axe_source() -> str:
    """The script of axe-core, as tools/web/package-lock.json pins it."""
    return (npm_packages(TOOLS, "axe-core", MISSING_AXE) / "axe.min.js").read_text()


@contextmanager
def browser() -> Iterator[Browser]:
    """One Chromium for a module."""
    path = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield started
        finally:
            started.close()


@contextmanager
def page_of(started: Browser, url: str, **context: Any) -> Iterator[Page]:
    """A page in a window of its own. An error of a script fails the test."""
    settings = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **context}
    window = started.new_context(**settings)
    window.set_default_timeout(TIMEOUT_MS)
    page = window.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.extend(_refusal(message)))
    try:
        page.goto(url)
        yield page
    finally:
        with contextlib.suppress(Exception):
            window.close()
    assert errors == []


def _refusal(message: ConsoleMessage) -> list[str]:
    """What the content security policy has refused."""
    return [message.text] if "Content Security Policy" in message.text else []


def axe_findings(page: Page, source: str) -> list[str]:
    """What axe finds in the page as it is now, one line a finding."""
    page.evaluate(source)  # as the console does it: the page's policy admits no script of ours
    report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
        for each in report["violations"]
    ]
