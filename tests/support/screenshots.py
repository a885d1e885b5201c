"""Takes the screenshots of docs/page/ from a real service: python -m tests.support.screenshots."""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.support import browser
from tests.support.page_actions import draw, expect_image, shown_image
from tests.support.service import ROOT, Service, running

FOLDER = ROOT / "docs" / "page"
COLOURS = ("red", "pink", "yellow", "green", "blue", "purple", "white", "black")
NOUNS = ("rocket", "pizza", "strawberry", "cat", "owl", "fish")
COUNT = 46
STEPS = 24


def prompts() -> list[str]:
    """Six nouns by turns, small or large, in each style, on every background."""
    return [
        f"a {('large', 'small')[number % 3 == 2]} {NOUNS[number % 6]}, "
        f"{('3d', 'flat')[number % 4 == 3]}, "
        f"on a {COLOURS[(number * 3 + number // 8) % 8]} background"
        for number in range(COUNT)
    ]


def shoot(page: Page, name: str) -> None:
    """Store what the page shows."""
    FOLDER.mkdir(exist_ok=True)
    page.wait_for_timeout(700)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.save(FOLDER / f"{name}.png", optimize=True)
    print(FOLDER / f"{name}.png")


def fill(service: Service) -> None:
    """Generate the images that the screenshots show."""
    uuids = [
        service.submit(prompt, seed=seed, num_inference_steps=STEPS, queue=True)
        for seed, prompt in enumerate(prompts())
    ]
    for uuid in uuids:
        service.results(uuid)
    names = [f"{uuid}-1" for uuid in uuids[2:40:7]]
    service.request("POST", "/image/star", json={"images": names})


def views(page: Page, url: str) -> None:
    """Take the screenshots of a wide window."""
    expect(shown_image(page)).to_be_visible()
    page.get_by_role("button", name="Show: a large owl").first.click()
    draw(page, "a strawberry on a green background", steps=60)
    expect_image(page, "a strawberry on a green background")
    draw(page, "a pizza on a yellow background", steps=60)
    expect_image(page, "a pizza on a yellow background")
    draw(page, "a rocket on a blue background", steps=500)
    draw(page, "a small fish on a blue background", steps=60)
    expect(page.locator(".progress-text")).to_contain_text(re.compile(r"Step [5-9]\d of"))
    expect(page.locator(".stage img.preview")).to_be_visible()
    shoot(page, "make")
    page.goto(f"{url}/#gallery")
    expect(page.locator(".cell img").nth(20)).to_be_visible()
    page.locator(".mark").nth(3).click(force=True)
    page.get_by_role("option").nth(6).click()
    shoot(page, "gallery")
    page.keyboard.press("Escape")
    page.get_by_role("option").nth(9).click()
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".badge.good")).to_be_visible()
    shoot(page, "image")
    page.get_by_role("button", name="Paint over").click()
    box = page.locator(".mask-place canvas").bounding_box()
    assert box is not None
    middle, side = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), box["width"] / 5
    page.mouse.move(middle[0] - side, middle[1] - side)
    page.mouse.down()
    for x, y in ((1, -1), (1, -0.4), (-1, -0.4), (-1, 0.2), (1, 0.2)):
        page.mouse.move(middle[0] + x * side, middle[1] + y * side, steps=12)
    page.mouse.up()
    shoot(page, "mask")


def main() -> None:
    """Start a service with the built-in model, fill it and look at it."""
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(
            Path(folder), "gateway", "gpu_worker", SDE_PIPELINE="gpu_worker.pipeline:load"
        ) as service,
        browser.browser() as started,
    ):
        fill(service)
        with browser.page_of(started, service.url, viewport={"width": 1360, "height": 850}) as page:
            views(page, service.url)
        phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
        with browser.page_of(started, service.url, color_scheme="dark", **phone) as page:
            expect(shown_image(page)).to_be_visible()
            page.get_by_role("textbox", name="Prompt", exact=True).fill(
                "a pizza on a yellow background"
            )
            shoot(page, "phone")


if __name__ == "__main__":
    main()
