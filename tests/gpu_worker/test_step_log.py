"""The log of a picture's steps, and how it finds the step at which two runs part."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gpu_worker import pipeline
from gpu_worker.pipeline.sampling.step_log import StepLog
from tests.support.pipeline_jobs import ignore, job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pipeline.load(settings(tmp_path_factory.mktemp("steps")))


def steps(loaded: Any, **asked: Any) -> list[dict[str, Any]]:
    (made,) = loaded.generate(job(step_log=True, **asked), ignore)
    rows: list[dict[str, Any]] = made.metadata["steps_log"]
    return rows


def test_each_step_is_noted(loaded: Any) -> None:
    rows = steps(loaded)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["timestep"] for row in rows] == sorted(
        (row["timestep"] for row in rows), reverse=True
    )
    for row in rows:
        assert set(row) == {
            "step", "timestep", "sigma", "seconds", "latents_sha256", "memory_bytes"
        }  # fmt: skip
        assert row["seconds"] > 0 and row["memory_bytes"] > 1e6 and len(row["latents_sha256"]) == 64
    assert len({row["latents_sha256"] for row in rows}) == 4


def test_the_same_run_has_the_same_latents_and_another_seed_others(loaded: Any) -> None:
    digests = [[row["latents_sha256"] for row in steps(loaded, seed=seed)] for seed in (1, 1, 2)]
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])


def test_each_picture_has_its_own_and_the_log_changes_no_pixel(loaded: Any) -> None:
    two = loaded.generate(job(step_log=True, num_images_per_prompt=2), ignore)
    assert [len(made.metadata["steps_log"]) for made in two] == [4, 4]
    assert two[0].metadata["steps_log"] != two[1].metadata["steps_log"]
    (plain,) = loaded.generate(job(), ignore)
    assert "steps_log" not in plain.metadata
    assert plain.image.tobytes() == two[0].image.tobytes()


class Sigmas:
    """Of a scheduler, what the log reads."""

    sigmas = torch.tensor([14.0, 7.0, 0.5, 0.0])
    step_index: int | None = None


def test_the_sigma_is_the_one_that_the_step_began_with() -> None:
    class Pipe:
        scheduler = Sigmas()

    log = StepLog(torch.device("cpu"), clock=iter(range(100)).__next__)
    for index in (1, 2):
        Pipe.scheduler.step_index = index + 1  # image to image: not from the first
        latents = torch.full((1, 4, 2, 2), float(index), dtype=torch.float16)
        log.note(Pipe(), torch.tensor(500.5), {"latents": latents})
    assert [row["sigma"] for row in log.rows] == [7.0, 0.5]
    assert [row["timestep"] for row in log.rows] == [500.5, 500.5]
    assert [row["seconds"] for row in log.rows] == [1, 1]
