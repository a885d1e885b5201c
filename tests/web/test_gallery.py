"""Gallery, image, compare and grid: find, select, delete with Undo, star, download."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import page_of
from tests.support.page_actions import expect_image, go, open_gallery
from tests.support.service import Service, eventually, running

PROMPTS = ("a red fox", "a blue whale", "a red house", "two green apples", "a blue house")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Five images of the instant pipeline."""
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway", "gpu_worker") as started,
    ):
        for seed, prompt in enumerate(PROMPTS):
            started.result(started.submit(prompt, seed=seed, queue=True, num_inference_steps=2))
        yield started


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    with page_of(browser, f"{service.url}/#gallery", accept_downloads=True) as opened:
        expect(opened.get_by_role("option")).to_have_count(len(PROMPTS))
        yield opened


def names(page: Page) -> list[str]:
    """The prompts in sight, in their order."""
    return [str(cell.get_attribute("aria-label")) for cell in page.get_by_role("option").all()]


def test_words_and_filters_find_images(page: Page) -> None:
    box = page.get_by_role("searchbox")
    box.fill("red")
    expect(page.locator(".total")).to_have_text("2 images")
    assert names(page) == ["a red house", "a red fox"]
    box.fill("red ho")
    expect(page.locator(".total")).to_have_text("1 image")
    box.fill("seed:3")
    expect(page.get_by_role("option", name="two green apples")).to_be_visible()
    box.fill('"blue house"')
    expect(page.locator(".total")).to_have_text("1 image")
    box.fill("red is:constructor")
    expect(page.locator(".total")).to_have_text("0 images")
    box.fill("nothing of this")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.get_by_role("button", name="Clear the search").last.click()
    expect(page.locator(".total")).to_have_text("5 images")
    page.get_by_role("button", name="Today").click()
    expect(page.locator(".total")).to_have_text(re.compile("images?"))
    expect(box).to_have_value(re.compile(r"after:\d{4}-\d\d-\d\d"))


def test_select_star_and_delete_with_undo(page: Page) -> None:
    cells = page.get_by_role("option")
    cells.nth(0).locator(".mark").click()
    cells.nth(2).click(modifiers=["Shift"])
    expect(page.locator(".selection-bar strong")).to_have_text("3 images selected")
    bar = page.get_by_role("toolbar", name="Selected images")
    bar.get_by_role("button", name="Star").click()
    expect(page.locator(".cell-star")).to_have_count(3)
    page.get_by_role("button", name="Starred").click()
    expect(page.locator(".total")).to_have_text("3 images")
    page.get_by_role("button", name="Starred").click()
    expect(page.locator(".total")).to_have_text("5 images")
    bar.get_by_role("button", name="Delete").click()
    expect(page.locator(".total")).to_have_text("2 images")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".total")).to_have_text("5 images")
    assert sorted(names(page)) == sorted(
        [f"{prompt}, starred" for prompt in PROMPTS[2:]] + list(PROMPTS[:2])
    )
    page.locator(".cell").nth(0).locator(".mark").click()
    page.keyboard.press("Control+a")
    bar.get_by_role("button", name="Remove stars").click()
    expect(page.locator(".cell-star")).to_have_count(2)


def test_a_selection_is_one_zip(page: Page) -> None:
    cells = page.get_by_role("option")
    cells.nth(0).locator(".mark").click()
    cells.nth(1).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert len(archive.namelist()) == 2
        for name in archive.namelist():
            Image.open(io.BytesIO(archive.read(name))).verify()


def test_an_image_has_its_settings_and_its_neighbours(page: Page) -> None:
    page.get_by_role("option", name="a blue whale").click()
    expect(page.locator(".fact-text p").first).to_have_text("a blue whale")
    expect(page.locator(".fact-list").first).to_contain_text("Seed")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".fact-text p").first).to_have_text("a red house")
    page.get_by_role("button", name="Older image").click()
    expect(page.locator(".fact-text p").first).to_have_text("a blue whale")
    page.get_by_text("Everything").click()
    expect(page.locator(".fact-list.all")).to_contain_text("uuid")
    page.keyboard.press("+")
    expect(page.get_by_role("button", name="Fit into the window")).to_have_text("140 %")
    page.keyboard.press("0")
    expect(page.get_by_role("button", name="Fit into the window")).to_have_text("100 %")
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert download.value.suggested_filename.endswith(".png")
    assert "whale" in download.value.suggested_filename


def test_a_deleted_image_gives_way_to_the_next_and_comes_back(page: Page) -> None:
    page.get_by_role("option", name="a blue whale").click()
    expect(page.locator(".fact-text p").first).to_have_text("a blue whale")
    page.keyboard.press("Delete")
    expect(page.locator(".fact-text p").first).to_have_text("a red fox")
    page.get_by_role("button", name="Undo").click()
    open_gallery(page, 5)


def test_a_link_opens_the_image_and_a_wrong_one_says_so(
    page: Page, browser: Browser, service: Service
) -> None:
    name = service.get("/image/results").json()["results"][0]["name"]
    with page_of(browser, f"{service.url}/#picture/{name}") as other:
        expect(other.locator(".fact-text p").first).to_have_text("a blue house")
        other.goto(f"{service.url}/#picture/{'0' * 8}-0000-4000-8000-{'0' * 12}-1")
        expect(other.get_by_role("heading", name="There is no such image")).to_be_visible()


def test_two_images_are_compared_by_keyboard_too(page: Page) -> None:
    cells = page.get_by_role("option")
    cells.nth(0).locator(".mark").click()
    cells.nth(1).click()
    page.get_by_role("button", name="Compare").click()
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(20):
        slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "60 percent")
    clip = page.locator(".slider img").nth(1).evaluate("image => image.style.clipPath")
    assert "40%" in clip
    rows = page.get_by_role("table").get_by_role("rowheader").all_inner_texts()
    assert {"prompt", "seed"} <= set(rows) and "uuid" not in rows
    page.get_by_role("button", name="Side by side").click()
    expect(page.locator(".side-by-side img")).to_have_count(2)


def test_a_grid_fills_and_becomes_one_png(page: Page, service: Service) -> None:
    go(page, "Grid")
    page.get_by_role("textbox", name="Prompt").fill("a red grid")
    page.get_by_label("Across, values").fill("1..3")
    page.get_by_label("Down", exact=True).select_option("words")
    page.get_by_label("Down, values").fill("red, green")
    expect(page.get_by_role("status").filter(has_text="6 images")).to_be_visible()
    page.get_by_role("button", name="Draw the grid").click()
    expect(page.locator(".grid-table img")).to_have_count(6)
    expect(page.get_by_role("status").filter(has_text="done")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="One PNG").click()
    with Image.open(download.value.path()) as png:
        assert png.width > 3 * 96 and png.height > 2 * 96
    records = [each for each in service.lines() if "grid" in each["prompt"]]
    assert sorted((each["seed"], each["prompt"]) for each in records) == sorted(
        (seed, f"a {word} grid") for seed in (1, 2, 3) for word in ("red", "green")
    )
    uuids = {each["uuid"] for each in records}
    service.request("POST", "/image/delete", json={"images": sorted(uuids)})
    eventually(lambda: service.get("/image/results").json()["total"] == 5, "the grid is gone")


def test_a_grid_ends_where_a_cell_is_refused(page: Page, service: Service) -> None:
    go(page, "Grid")
    page.get_by_role("textbox", name="Prompt").fill("a purple grid")
    page.get_by_label("Across", exact=True).select_option("num_inference_steps")
    page.get_by_label("Across, values").fill("2, 1000000, 3")
    page.get_by_label("Down", exact=True).select_option("")
    page.get_by_role("button", name="Draw the grid").click()
    for _ in range(2):
        expect(page.get_by_role("status").filter(has_text="done")).to_be_visible()
        expect(page.locator(".grid-table img")).to_have_count(1)
        expect(page.locator(".grid-wait.failed")).to_have_count(2)
        page.reload()  # the ends outlive it
    (record,) = [each for each in service.lines() if each["prompt"] == "a purple grid"]
    service.request("POST", "/image/delete", json={"images": [record["uuid"]]})
    eventually(lambda: service.get("/image/results").json()["total"] == 5, "the grid is gone")


def test_the_settings_of_an_image_draw_it_again(page: Page) -> None:
    page.get_by_role("option", name="a red fox").click()
    page.get_by_role("button", name="Use all").click()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("a red fox")
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("0")
    page.get_by_role("button", name=re.compile("^Draw")).click()
    expect_image(page, "a red fox")
    expect(page.locator(".newest li")).to_have_count(6)
