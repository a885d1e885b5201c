"""Partial images: at which steps they are due, and how long their files stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.output.partial_images import MAX_JOBS, PartialImages, due
from gpu_worker.store import partial_image

CREATED = "2026-01-01T00:00:00.000+00:00"


def job(count: int, images: int = 1, number: int = 1) -> Job:
    return Job(
        uuid=f"00000000-0000-4000-8000-{number:012d}",
        sequence=number,
        created_time=CREATED,
        request=GenerationRequest(prompt="a", num_images_per_prompt=images),
        partial_images=count,
    )


@pytest.mark.parametrize(
    ("count", "images", "steps", "places"),
    [
        (0, 1, 20, []),
        (1, 1, 20, [(10, 0, 0)]),
        (3, 1, 20, [(5, 0, 0), (10, 0, 1), (15, 0, 2)]),
        (2, 2, 18, [(3, 0, 0), (6, 0, 1), (12, 1, 0), (15, 1, 1)]),
        (3, 1, 3, [(1, 0, 0), (2, 0, 1)]),
        (3, 1, 1, []),
    ],
)
def test_they_are_spread_evenly(
    count: int, images: int, steps: int, places: list[tuple[int, int, int]]
) -> None:
    asked = job(count, images)
    dues = [(step, due(asked, step, steps)) for step in range(1, steps + 1)]
    assert [(step, *place) for step, place in dues if place is not None] == places


def test_the_files_of_the_last_jobs_stay(tmp_path: Path) -> None:
    files = PartialImages(tmp_path, "gpu-0")
    jobs = [job(1, number=number) for number in range(MAX_JOBS + 2)]
    for each in jobs:
        files.offer(each, 1, 2, lambda: Image.new("RGB", (64, 32)))
    found = [partial_image.find(tmp_path, "gpu-0", each.uuid) for each in jobs]
    assert [len(each) for each in found] == [0, 0, *[1] * MAX_JOBS]
    ((place, path),) = found[-1].items()
    with Image.open(path) as image:
        assert place == (0, 0) and image.size == (64, 32)


def test_one_that_fails_costs_nothing_else(tmp_path: Path) -> None:
    def fails() -> Image.Image:
        raise RuntimeError("on purpose")

    files = PartialImages(tmp_path, "gpu-0")
    files.offer(job(1), 1, 2, fails)
    assert list(tmp_path.iterdir()) == []
