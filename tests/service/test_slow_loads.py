"""A load may take longer than a step's deadline while bytes move; one that hangs is ended."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

import pytest

from gpu_worker.control.movement import Movement
from tests.support.service import DEADLINE_S, running

SHORT = {"SDE_PIPELINE": "tests.pipelines.slow_loads:load", "SDE_STEP_TIMEOUT_S": "1"}


@pytest.mark.parametrize("kind", ["download", "read", "map"])
def test_a_worker_that_moves_bytes_lives_on(folder: Path, kind: str) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_MODEL=kind, **SHORT) as service:
        record = service.result(service.submit(kind, num_inference_steps=1))
        assert record["errors"] == [] and record["attempt"] == 1 and record["seconds"] > 3
        assert service.children["gpu_worker"].poll() is None


def test_a_start_that_hangs_is_ended_and_the_next_one_says_why(folder: Path) -> None:
    with running(folder, "gateway", SDE_MODEL="hang", **SHORT) as service:
        service.start("gpu_worker")
        assert service.children["gpu_worker"].wait(DEADLINE_S) == 1
        reason = (folder / "run" / "gpu-0.load_error").read_text()
        assert reason.startswith("hang\nhang: no byte has moved for 1 s (SDE_STEP_TIMEOUT_S)")
        assert "Timeout" in service.output()  # faulthandler's traceback


@pytest.mark.parametrize("prompt", ["hang", "read in a step"])
def test_what_moves_nothing_or_comes_after_the_first_step_is_ended(
    folder: Path, prompt: str
) -> None:
    with running(folder, "gateway", "gpu_worker", **SHORT) as service:
        service.submit(prompt, num_inference_steps=2)
        assert service.children["gpu_worker"].wait(DEADLINE_S) == 1
        assert ("no byte has moved for 1 s" in service.output()) == (prompt == "hang")


def test_each_kind_of_movement_is_noticed_once(tmp_path: Path) -> None:
    file = tmp_path / "models--a--b" / "blobs" / "0.incomplete"
    file.parent.mkdir(parents=True)
    movement = Movement(tmp_path)
    answers: list[bool] = []

    def look() -> bool:
        """In a thread of its own, as the worker does it."""
        thread = threading.Thread(target=lambda: answers.append(movement()))
        thread.start()
        thread.join()
        return answers[-1]

    look()
    assert not look()
    with open(file, "wb") as download:
        os.truncate(download.fileno(), 1 << 20)
        assert look() and not look()
        os.pwrite(download.fileno(), b"x", 1 << 19)
        assert look() and not look()
    file.unlink()
    assert look() and not look()
    block = mmap.mmap(-1, 8 << 20)  # its pages are no earlier ones of malloc
    block.write(b"x" * len(block))
    assert look() and not look()
    block.close()
    assert look() and not look()
    Path(__file__).read_bytes()
    assert look() and not look()
