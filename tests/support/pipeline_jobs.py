"""Settings and jobs for the real pipeline on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.loading.sources import DEMO_MODEL
from gpu_worker.settings import WorkerSettings, load


def demo_side_px() -> int:
    """The side of the built-in model's images."""
    config = json.loads((DEMO_MODEL / "vae/config.json").read_text())
    return int(config["sample_size"])


def settings(folder: Path, **given: str) -> WorkerSettings:
    return load(WorkerSettings, {"SDE_DATA_DIR": str(folder), "SDE_DEVICE": "cpu", **given})


def job(**given: Any) -> Job:
    asked = {"prompt": "a large red apple on a blue background", "seed": 7, **given}
    request = GenerationRequest.model_validate({"num_inference_steps": 4, **asked})
    return Job(
        sequence=1,
        uuid="00000000-0000-4000-8000-000000000000",
        created_time="2026-01-01T00:00:00Z",
        request=request,
    )


def ignore(step: int, steps: int, preview: object = None) -> None:
    """No progress wanted."""
