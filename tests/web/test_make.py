"""The view Make against real processes: draw, watch, cancel, errors, and what a reload keeps."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import page_of
from tests.support.page_actions import (
    draw,
    draw_button,
    expect_image,
    go,
    listen,
    open_gallery,
    shown_image,
    spoken,
    stored_value,
)
from tests.support.service import Service, running

HTML = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> & <b>"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Every step takes a twentieth of a second, and there are previews."""
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(
            Path(folder), "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.slow:load"
        ) as started,
    ):
        yield started


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    with page_of(browser, service.url) as opened:
        yield opened


def test_draw_watch_the_preview_and_see_the_image(page: Page) -> None:
    listen(page)
    draw(page, "a first image", steps=60)
    expect(page.locator(".stage img.preview")).to_be_visible()
    expect(page.locator(".progress-text")).to_contain_text(re.compile(r"Step \d+ of 60"))
    expect(page.locator(".progress-text")).to_contain_text("left")
    expect(page).to_have_title(re.compile(r"^\d+/60 "))
    expect_image(page, "a first image")
    page.wait_for_function("() => window.spoken.includes('Your image is ready.')")
    assert [text for text in spoken(page) if "queue" not in text] == [
        "Your image is being generated.",
        "Half done.",
        "Your image is ready.",
    ]
    expect(page.locator(".newest li")).to_have_count(1)


def test_draw_always_queues_and_each_job_can_be_canceled(page: Page, service: Service) -> None:
    draw(page, "a long one", steps=400)
    expect(page.locator(".progress-text")).to_contain_text("Step")
    draw(page, "the next one")
    draw(page, "the last one")
    cards = page.locator(".queue .card")
    expect(cards).to_have_count(3)
    expect(cards.nth(2)).to_contain_text("the last one")
    page.get_by_role("button", name="Cancel: the last one").click()
    expect(cards).to_have_count(2)
    page.locator(".stage").get_by_role("button", name="Cancel").click()
    expect(cards.filter(has_text="a long one")).to_have_count(0)
    page.keyboard.press("Escape")
    question = page.get_by_role("dialog", name="Cancel this job?")
    question.get_by_role("button", name="Cancel the job").click()
    expect(cards).to_have_count(0)
    states = [job["state"] for job in service.get("/image/jobs?limit=3").json()]
    assert states == ["canceled"] * 3


def test_another_browser_sees_the_queue(page: Page, browser: Browser, service: Service) -> None:
    draw(page, "a job of the first", steps=400)
    expect(page.locator(".progress-text")).to_contain_text("Step")
    with page_of(browser, service.url) as other:
        expect(other.locator(".queue .card")).to_have_count(1)
        draw(other, "a job of the second", steps=2)
        expect(other.locator(".progress-text")).to_contain_text("1 job before yours")
        page.locator(".stage").get_by_role("button", name="Cancel").click()
        expect_image(other, "a job of the second")


def test_a_reload_keeps_the_form_and_the_job(page: Page) -> None:
    draw(page, "kept over a reload", steps=80)
    page.get_by_role("textbox", name="Negative prompt").fill("blurry")
    page.get_by_role("textbox", name="Seed").fill("77")
    page.get_by_role("button", name="Portrait").click()
    expect(page.locator(".progress-text")).to_contain_text("Step")
    page.reload()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value(
        "kept over a reload"
    )
    expect(page.get_by_role("textbox", name="Negative prompt")).to_have_value("blurry")
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("77")
    assert stored_value(page, "form")["num_inference_steps"] == 80
    expect(page.get_by_role("button", name="Portrait")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".progress-text")).to_contain_text("Step")
    expect_image(page, "kept over a reload")


def test_a_prompt_full_of_html_is_text_everywhere(page: Page) -> None:
    draw(page, HTML, steps=3)
    expect_image(page, HTML)
    expect(page.locator(".stage .prompt-line")).to_have_text(HTML)
    shown_image(page).click()
    expect(page.locator(".fact-text p").first).to_have_text(HTML)
    go(page, "Gallery")
    expect(page.get_by_role("option").first).to_have_attribute("aria-label", HTML)
    assert "owned" not in page.title()
    assert page.locator("img[src='x']").count() == 0


def test_a_refused_field_says_why_at_its_place(page: Page) -> None:
    page.get_by_role("textbox", name="Prompt", exact=True).fill("")
    draw_button(page).click()
    expect(page.locator("#prompt-error")).to_have_text("Say what to draw.")
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_be_focused()
    draw(page, "too many steps", steps=900)
    expect(page.locator(".field-error", has_text="500")).to_be_visible()
    expect(page.get_by_role("spinbutton", name="Steps")).to_be_focused()
    page.get_by_role("spinbutton", name="Steps").fill("2")
    expect(page.locator(".field-error", has_text="500")).to_have_count(0)


def test_nothing_overwrites_the_form_without_undo(page: Page) -> None:
    draw(page, "the settings of an image", steps=3)
    expect_image(page, "the settings of an image")
    page.get_by_role("textbox", name="Prompt", exact=True).fill("typed since")
    page.get_by_role("toolbar").get_by_role("button", name="Use all").click()
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    expect(prompt).to_have_value("the settings of an image")
    expect(page.get_by_role("textbox", name="Seed")).to_have_value(re.compile(r"\d+"))
    page.get_by_role("button", name="Undo").click()
    expect(prompt).to_have_value("typed since")
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("")


def test_words_get_weights_and_prompts_come_back(page: Page) -> None:
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    prompt.fill("a red fox")
    prompt.evaluate("box => box.setSelectionRange(2, 5)")
    prompt.press("Control+ArrowUp")
    prompt.press("Control+ArrowUp")
    expect(prompt).to_have_value("a (red:1.2) fox")
    prompt.press("Control+ArrowDown")
    prompt.press("Control+ArrowDown")
    expect(prompt).to_have_value("a red fox")
    draw(page, "remembered", steps=2)
    expect_image(page, "remembered")
    prompt.fill("")
    prompt.press("ArrowUp")
    expect(prompt).to_have_value("remembered")


def test_the_empty_page_says_where_to_begin(browser: Browser) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway", "gpu_worker") as fresh,
        page_of(browser, fresh.url) as page,
    ):
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        first = page.locator(".prompts-to-try button").first
        prompt = first.inner_text()
        first.click()
        expect_image(page, prompt)
        open_gallery(page, 1)
