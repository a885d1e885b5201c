"""From an image, with the built-in model: mask, strength, a PNG's settings, upscale and verify."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import page_of
from tests.support.page_actions import draw, expect_image, go, more, shown_image
from tests.support.service import Service, eventually, running

PROMPT = "a large red apple on a blue background"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The built-in model, and one image of it."""
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(
            Path(folder), "gateway", "gpu_worker", SDE_PIPELINE="gpu_worker.pipeline:load"
        ) as started,
    ):
        started.result(started.submit(PROMPT, seed=7, num_inference_steps=6, queue=True))
        yield started


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    with page_of(browser, service.url) as opened:
        expect(shown_image(opened)).to_be_visible()
        yield opened


def newest_record(service: Service) -> dict[str, Any]:
    """The record of the newest image, with its pixels."""
    record: dict[str, Any] = service.get("/image/generate?limit=1").json()[0]
    return record


def pixels(record: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(record["data"]))).convert("RGB")


def press_and_drag(page: Page, *points: tuple[float, float]) -> None:
    """Drag over the mask, by shares of its sides."""
    box = page.locator(".mask-place canvas").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def mask_coverage(page: Page) -> float:
    """The share of the mask that is painted."""
    share: float = page.evaluate(
        "() => { const canvas = document.querySelector('.mask-place canvas');"
        " const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        " let count = 0; for (let at = 3; at < data.length; at += 4) count += data[at] > 127;"
        " return count / (data.length / 4); }"
    )
    return share


def test_a_mask_is_painted_and_used(page: Page, service: Service) -> None:
    before = pixels(newest_record(service))
    page.get_by_role("button", name="Paint over").click()
    expect(page.locator(".mask-place canvas")).to_be_focused()
    page.keyboard.press("r")
    press_and_drag(page, (0.0, 0.0), (0.5, 1.0))
    assert mask_coverage(page) == pytest.approx(0.5, abs=0.05)
    page.keyboard.press("Control+z")
    assert mask_coverage(page) == 0
    page.keyboard.press("Control+y")
    page.keyboard.press("e")
    press_and_drag(page, (0.1, 0.1), (0.1, 0.9))
    assert mask_coverage(page) < 0.49
    page.keyboard.press("Control+z")
    page.keyboard.press("b")
    page.keyboard.press("]")
    page.get_by_role("button", name="Invert").click()
    assert mask_coverage(page) == pytest.approx(0.5, abs=0.05)
    page.get_by_role("button", name="Invert").click()
    page.get_by_role("button", name="Use the mask").click()
    expect(page.locator(".mask-thumb")).to_be_visible()
    draw(page, "a small green frog on a black background", steps=6)
    expect_image(page, "a small green frog on a black background")
    record = newest_record(service)
    assert record["mask_image"].startswith("sha256:") and record["image"].startswith("sha256:")
    after = pixels(record)
    right = (before.width // 2 + 4, 0, before.width, before.height)
    assert after.crop(right).tobytes() == before.crop(right).tobytes()
    left = (0, 0, before.width // 2 - 4, before.height)
    assert after.crop(left).tobytes() != before.crop(left).tobytes()
    expect(page.locator(".mask-thumb")).to_be_visible()
    page.reload()
    expect(page.locator(".mask-thumb")).to_be_visible()


def test_a_mask_is_painted_by_keyboard(page: Page) -> None:
    page.get_by_role("button", name="Paint over").click()
    canvas = page.locator(".mask-place canvas")
    expect(canvas).to_be_focused()
    canvas.press("Space")
    for _ in range(6):
        canvas.press("ArrowRight")
    canvas.press("Space")
    painted = mask_coverage(page)
    assert painted > 0.005
    canvas.press("ArrowDown")
    assert mask_coverage(page) == painted
    page.keyboard.press("Escape")
    expect(page.locator(".mask-thumb")).to_have_count(0)


def test_a_dropped_png_gives_its_settings_back(page: Page, service: Service) -> None:
    page.get_by_role("textbox", name="Prompt", exact=True).fill("typed before")
    text = PngInfo()
    text.add_text(
        "parameters",
        "a cat, a hat\nNegative prompt: a dog\n"
        "Steps: 12, Sampler: Euler a, CFG scale: 6.5, Seed: 42, Size: 64x96, Model: other",
    )
    data = io.BytesIO()
    Image.new("RGB", (64, 96), "navy").save(data, "PNG", pnginfo=text)
    file = {"name": "theirs.png", "mimeType": "image/png", "buffer": data.getvalue()}
    page.locator("details", has_text="From an image").locator("summary").click()
    page.get_by_label("Start image, file").set_input_files(file)
    page.get_by_role("button", name="Use its settings").click()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("a cat, a hat")
    expect(page.get_by_role("textbox", name="Negative prompt")).to_have_value("a dog")
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("42")
    expect(page.locator(".size .value")).to_have_text("64 × 96")
    more(page)
    expect(page.get_by_role("spinbutton", name="Steps")).to_have_value("12")
    expect(page.get_by_role("spinbutton", name="Guidance", exact=True)).to_have_value("6.5")
    expect(page.get_by_role("combobox", name="Sampler")).to_have_value("Euler a")
    expect(page.locator(".notice")).to_contain_text("left out: the model other")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("typed before")
    ours = service.get(f"/image/files/{newest_record(service)['uuid']}.png").content
    file = {"name": "ours.png", "mimeType": "image/png", "buffer": ours}
    page.get_by_label("Start image, file").set_input_files(file)
    page.get_by_role("button", name="Use its settings").click()
    prompt = newest_record(service)["prompt"]
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value(prompt)


DROP = """data => {
  const bytes = Uint8Array.from(atob(data), each => each.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
  const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
  document.body.dispatchEvent(new DragEvent("drop", options));
}"""


@pytest.mark.parametrize("view", ["Gallery", "Grid"])
def test_a_png_is_dropped_on_any_view(page: Page, service: Service, view: str) -> None:
    record = newest_record(service)
    ours = service.get(f"/image/files/{record['uuid']}.png").content
    go(page, view)
    page.evaluate(DROP, base64.b64encode(ours).decode())
    page.get_by_role("button", name="Use its settings").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    go(page, "Make")
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    expect(prompt).to_have_value(record["prompt"])


def test_an_image_is_verified_and_upscaled(page: Page, service: Service) -> None:
    uuid = next(
        each["uuid"]
        for each in service.get("/image/results").json()["results"]
        if each["prompt"] == PROMPT
    )
    total = service.get("/image/results").json()["total"]
    page.goto(f"{service.url}/#picture/{uuid}-1")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".badge.good")).to_contain_text("Identical")
    assert service.get("/image/results").json()["total"] == total
    page.get_by_role("button", name="Upscale").click()
    expect(shown_image(page)).to_have_attribute("width", "192")
    record = newest_record(service)
    assert record["upscale"]["scale"] == 2 and record["source"]["uuid"] == uuid


def test_a_variation_has_another_seed(page: Page, service: Service) -> None:
    results = service.get("/image/results").json()
    uuid = next(each["uuid"] for each in results["results"] if each["prompt"] == PROMPT)
    page.goto(f"{service.url}/#picture/{uuid}-1")
    page.get_by_role("button", name="Vary").click()
    expect(page.locator(".notice", has_text="variation")).to_be_visible()
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("")
    eventually(
        lambda: service.get("/image/results").json()["total"] == results["total"] + 1,
        "the variation is there",
    )
    varied = newest_record(service)
    assert varied["prompt"] == PROMPT and varied["seed"] != 7
    assert varied["num_inference_steps"] == 6
