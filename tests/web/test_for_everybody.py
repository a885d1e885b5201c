"""Accessibility: axe finds nothing in both themes, keys do everything, and a phone fits."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import axe_findings, axe_source, page_of
from tests.support.page_actions import draw, expect_image, listen, more, shown_image
from tests.support.service import Service, running

TARGET_PX = 44
"""The least side of what a finger hits (WCAG 2.2, success criterion 2.5.5)."""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Models with everything that the form can show, and a few images."""
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(
            Path(folder), "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.describes:load"
        ) as started,
    ):
        for seed in range(3):
            started.result(started.submit(f"image {seed}", seed=seed, queue=True))
        yield started


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_source()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, service: Service, axe: str, theme: str) -> None:
    name = service.get("/image/results").json()["results"][0]["name"]
    other = service.get("/image/results").json()["results"][1]["name"]
    with page_of(browser, service.url, color_scheme=theme) as page:
        expect(shown_image(page)).to_be_visible()
        more(page)
        page.get_by_role("combobox", name="LoRAs").select_option("ink")
        page.get_by_role("checkbox", name=re.compile("hires")).check()
        page.get_by_role("button", name="What is Steps?").click()
        assert axe_findings(page, axe) == []
        page.get_by_role("button", name="Use as start").click()
        expect(page.locator(".slot-image img")).to_be_visible()
        assert axe_findings(page, axe) == []
        page.get_by_role("button", name="Paint over").last.click()
        expect(page.locator(".mask-place canvas")).to_be_visible()
        assert axe_findings(page, axe) == []
        page.get_by_role("button", name="Discard").click()
        page.keyboard.press("?")
        assert axe_findings(page, axe) == []
        page.keyboard.press("Escape")
        views = {
            "gallery": page.get_by_role("option").first,
            f"picture/{name}": page.locator(".fact-list").first,
            f"compare/{name}/{other}": page.get_by_role("table"),
            "grid": page.get_by_role("button", name="Draw the grid"),
            "server": page.get_by_role("heading", name="Models"),
        }
        for view, sign in views.items():
            page.goto(f"{service.url}/#{view}")
            expect(sign).to_be_visible()
            if view == "gallery":
                page.locator(".mark").first.click(force=True)
            assert axe_findings(page, axe) == [], view


def test_axe_finds_nothing_on_an_empty_page(browser: Browser, axe: str) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway") as service,
        page_of(browser, service.url) as page,
    ):
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert axe_findings(page, axe) == []


def test_the_keyboard_alone_draws_finds_and_deletes(browser: Browser, service: Service) -> None:
    with page_of(browser, service.url) as page:
        listen(page)
        expect(shown_image(page)).to_be_visible()
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "prompt":
                break
        page.keyboard.type("by keyboard")
        page.keyboard.press("Control+Enter")
        expect_image(page, "by keyboard")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("g")
        cells = page.get_by_role("option")
        expect(cells).to_have_count(4)
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox")).to_be_focused()
        page.keyboard.type("image")
        expect(cells).to_have_count(3)
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('role')") == "option":
                break
        page.keyboard.press("ArrowRight")
        expect(cells.nth(1)).to_be_focused()
        page.keyboard.press("s")
        expect(cells.nth(1).locator(".cell-star")).to_be_visible()
        page.keyboard.press("Space")
        page.keyboard.press("Shift+ArrowRight")
        expect(page.locator(".selection-bar strong")).to_have_text("2 images selected")
        page.keyboard.press("Escape")
        expect(page.locator(".selection-bar")).to_have_count(0)
        cells.nth(1).focus()
        page.keyboard.press("Enter")
        expect(page.locator(".fact-text p").first).to_have_text("image 1")
        page.keyboard.press("u")
        expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("image 1")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
        page.go_back()
        expect(page.locator(".fact-text p").first).to_have_text("image 1")
        page.keyboard.press("Delete")
        expect(page.locator(".notice", has_text="deleted")).to_be_visible()
        page.get_by_role("button", name="Undo").last.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("() => window.spoken.some(text => text.includes('restored'))")


SMALL_TARGETS = """least => {
  const all = [...document.querySelectorAll('button, a[href], select, input, textarea, summary')];
  const isSeen = each => each.checkVisibility({visibilityProperty: true});
  const isText = each => each.closest('.prompt-line') || each.matches('.link, p a');
  const isNative = each => ['checkbox', 'range', 'file'].includes(each.type);
  const sides = each => {
    const {width, height} = each.getBoundingClientRect();
    const more = getComputedStyle(each, '::after');
    const extra = more.content === '""' && more.position === 'absolute' ? 18 : 0;
    return [width + extra, height + extra];
  };
  return all.filter(each => isSeen(each) && !isText(each) && !isNative(each))
    .map(each => [each.getAttribute('aria-label') || each.textContent || each.id, ...sides(each)])
    .filter(([, width, height]) => width > 1 && (height < least - 2.5 || width < 26))
    .map(each => each.join(' '));
}"""


def small_targets(page: Page) -> list[str]:
    """What a finger would miss: buttons, links and fields in sight, smaller than TARGET_PX."""
    found: list[str] = page.evaluate(SMALL_TARGETS, TARGET_PX)
    return found


def test_a_phone_shows_the_image_on_top_and_draw_at_the_bottom(
    browser: Browser, service: Service
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with page_of(browser, service.url, **phone) as page:
        expect(shown_image(page)).to_be_visible()
        image = page.locator(".canvas").bounding_box()
        button = page.get_by_role("button", name=re.compile("^Draw")).bounding_box()
        assert image is not None and button is not None
        assert image["y"] < 100 and button["y"] > 600
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert small_targets(page) == []
        page.get_by_role("button", name="Settings").tap()
        expect(page.locator(".size")).to_be_visible()
        more(page)
        assert small_targets(page) == []
        page.get_by_role("button", name="Done").tap()
        draw(page, "from the phone")
        expect_image(page, "from the phone")
        for view in ("gallery", "grid", "server", "compare"):
            page.goto(f"{service.url}/#{view}")
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") == 390, view
        page.goto(f"{service.url}/#gallery")
        page.get_by_role("option").first.tap()
        expect(page.locator(".fact-text p").first).to_have_text("from the phone")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert small_targets(page) == []
