"""A GPU that is lost in a job: the outcome is on disk, the worker is replaced, the next job runs.

The worker's own pipeline runs in a real process, on a make-believe CUDA device.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.losing_prompts import LOSE, LOSE_IN_A_LIBRARY
from tests.support.service import eventually, running

LOADING = {"SDE_PIPELINE": "tests.pipelines.make_believe_cuda:load", "SDE_DEVICE": "cuda"}


@pytest.mark.parametrize("prompt", [LOSE, LOSE_IN_A_LIBRARY])
def test_a_lost_gpu_costs_one_job_and_the_process(folder: Path, prompt: str) -> None:
    with running(folder, "supervisor", **LOADING) as service:
        first = service.result(service.submit("a cat", seed=1, num_inference_steps=1))
        assert first["errors"] == [] and first["device"] == "Make-believe GPU"
        worker = service.processes("gpu_worker")[0].pid
        lost = service.result(service.submit(prompt, num_inference_steps=2))
        assert lost["data"] is None and lost["state"] == "failed"
        assert lost["errors"][0].startswith("the device was lost: CUDA error: ")
        assert "Error:" not in lost["errors"][0], "no exception is named"
        eventually(
            lambda: [each.pid for each in service.processes("gpu_worker")] not in ([], [worker]),
            "another worker lives",
        )
        service.wait_available()
        again = service.result(service.submit("a cat", seed=1, num_inference_steps=1))
        assert again["errors"] == [] and again["pixels_sha256"] == first["pixels_sha256"]
        assert "exit code 70" in service.output()
