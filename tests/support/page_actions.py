"""What a test does on the page: it fills the form, draws, and waits for what the page shows."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.support.browser import TIMEOUT_MS

expect.set_options(timeout=TIMEOUT_MS)


def draw(page: Page, prompt: str, steps: int | None = None) -> None:
    """Fill the prompt and press Draw."""
    page.get_by_role("textbox", name="Prompt", exact=True).fill(prompt)
    if steps is not None:
        more(page)
        page.get_by_role("spinbutton", name="Steps").fill(str(steps))
    draw_button(page).click()


def draw_button(page: Page) -> Locator:
    return page.get_by_role("button", name=re.compile(r"^Draw(?! the)"))


def more(page: Page) -> None:
    """Open the folded settings, if they are not."""
    if page.locator("details.more").get_attribute("open") is None:
        page.locator("details.more > summary").click()
    page.locator("details.more .fields").wait_for()


def shown_image(page: Page) -> Locator:
    """The stored image in the middle of Make."""
    return page.locator(".stage a.canvas img")


def expect_image(page: Page, prompt: str) -> None:
    """The image of this prompt is in the middle, and it is loaded."""
    image = shown_image(page)
    expect(image).to_have_attribute("alt", prompt)
    page.wait_for_function(
        "() => { const image = document.querySelector('.stage a.canvas img');"
        " return image && image.complete && image.naturalWidth > 0; }"
    )


def go(page: Page, view: str) -> None:
    """Follow a link of the head to a view."""
    page.get_by_role("navigation", name="Views").get_by_role("link", name=view).click()


def open_gallery(page: Page, count: int) -> Locator:
    """The cells of the gallery, once the whole list has this many images."""
    go(page, "Gallery")
    noun = "image" if count == 1 else "images"
    expect(page.locator(".total")).to_have_text(f"{count:,} {noun}")
    return page.get_by_role("option")


def listen(page: Page) -> None:
    """Keep what the live region says from now on."""
    page.evaluate(
        "() => { window.spoken = []; const region = document.querySelector('p[role=status]"
        ".visually-hidden'); new MutationObserver(() => window.spoken.push(region.textContent))"
        ".observe(region, {characterData: true, childList: true, subtree: true}); }"
    )


def spoken(page: Page) -> list[str]:
    """What the live region has said since."""
    texts: list[str] = page.evaluate("window.spoken")
    return texts


def stored_value(page: Page, name: str) -> Any:
    """What the page keeps of itself under this name."""
    return page.evaluate("name => JSON.parse(localStorage.getItem('sde.' + name))", name)
