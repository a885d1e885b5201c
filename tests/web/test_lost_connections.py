"""What dies and what is refused: the page goes on, loses nothing that was typed, and says why."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import page_of
from tests.support.page_actions import draw, draw_button, expect_image, go
from tests.support.service import Service, running

HELD = "tests.pipelines.held:load"
KEY = "sde_0123456789abcdef0123456789abcdef"


@pytest.fixture
def held() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service,
    ):
        yield service


def test_the_gateway_is_killed_in_the_middle_and_the_page_goes_on(
    browser: Browser, held: Service
) -> None:
    with page_of(browser, held.url) as page:
        draw(page, "begun before")
        expect(page.locator(".progress-text")).to_contain_text("Step 1 of")
        held.kill("gateway")
        expect(page.locator(".band", has_text="Not connected")).to_be_visible()
        draw(page, "typed while it was away")
        expect(page.locator(".queue .card", has_text="not sent yet")).to_be_visible()
        held.release()
        held.start("gateway")
        held.wait_answering()
        expect(page.locator(".band", has_text="Not connected")).to_have_count(0)
        expect_image(page, "typed while it was away")
        expect(page.locator(".newest li")).to_have_count(2)
        prompts = [each["prompt"] for each in held.lines()]
        assert sorted(prompts) == ["begun before", "typed while it was away"]
        prompt = page.get_by_role("textbox", name="Prompt", exact=True)
        expect(prompt).to_have_value("typed while it was away")


def test_the_worker_is_killed_and_the_job_ends_all_the_same(
    browser: Browser, held: Service
) -> None:
    with page_of(browser, held.url) as page:
        draw(page, "outlives a worker")
        expect(page.locator(".progress-text")).to_contain_text("Step 1 of")
        held.kill("gpu_worker")
        held.release()
        held.start("gpu_worker")
        expect_image(page, "outlives a worker")
        go(page, "Server")
        expect(page.get_by_role("heading", name=re.compile("gpu-0"))).to_contain_text("idle")


def test_a_job_that_fails_says_why_and_what_helps(browser: Browser) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(
            Path(folder), "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.raises:load"
        ) as service,
        page_of(browser, service.url) as page,
    ):
        draw(page, "needs more memory")
        expect(page.get_by_role("heading", name="This image could not be made")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("Out of memory")
        page.get_by_role("button", name="Try 384 × 384").click()
        expect(page.locator(".size .value")).to_have_text("384 × 384")
        expect(page.get_by_role("heading", name="This image could not be made")).to_be_visible()
        page.get_by_role("button", name="Dismiss").click()
        expect(page.get_by_role("heading", name="What would you like to see?")).to_be_visible()
        go(page, "Gallery")
        page.get_by_role("button", name="Failed").click()
        expect(page.get_by_role("option")).to_have_count(2)


def test_a_full_disk_is_said_once_and_the_rest_works(browser: Browser) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway", SDE_MIN_FREE_MIB="1000000000") as service,
        page_of(browser, service.url) as page,
    ):
        expect(page.locator(".band", has_text="No new images")).to_be_visible()
        page.get_by_role("link", name="Open the gallery").click()
        expect(page.get_by_role("heading", name="No images yet")).to_be_visible()


def test_a_key_is_asked_for_and_kept_out_of_the_address(browser: Browser) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway", "gpu_worker", SDE_KEYS=f"laptop:{KEY}", SDE_KEY=KEY) as s,
    ):
        with page_of(browser, s.url) as page:
            dialog = page.get_by_role("dialog", name="This service needs a key")
            dialog.get_by_label("Key", exact=True).fill("wrong")
            dialog.get_by_role("button", name="Sign in").click()
            expect(dialog.get_by_role("alert")).to_have_text("This key is not valid.")
            dialog.get_by_label("Key", exact=True).fill(KEY)
            dialog.get_by_role("button", name="Sign in").click()
            expect(dialog).to_be_hidden()
            draw(page, "signed in")
            expect_image(page, "signed in")
        with page_of(browser, f"{s.url}/#key={KEY}") as page:
            expect_image(page, "signed in")
            assert KEY not in page.evaluate("location.href + document.documentElement.outerHTML")
            assert KEY not in page.evaluate("JSON.stringify(localStorage)")
            page.go_back()
            assert KEY not in page.url


def test_without_a_worker_the_form_is_there_and_a_job_says_what_is_missing(
    browser: Browser,
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway") as service,
        page_of(browser, service.url) as page,
    ):
        expect(page.locator(".status")).to_have_text("No worker")
        draw(page, "nobody is there")
        expect(page.locator(".notice.error")).to_contain_text("worker")
        expect(draw_button(page)).to_be_enabled()
