"""The worker's own pipeline on a make-believe CUDA device, which a prompt may lose.

The devices are put in place at the import, before diffusers.
"""

from __future__ import annotations

from typing import Any

from tests.support.cuda import device
from tests.support.cuda.faults import FAULTS
from tests.support.losing_prompts import LOSE, LOSE_IN_A_LIBRARY

device.enter()


def load(settings: Any) -> Any:
    """Return the pipeline, whose steps fail as a lost device does if the prompt says so."""
    from gpu_worker import pipeline

    ours = pipeline.load(settings)
    generate = ours.generate

    def generate_or_lose(job: Any, on_step: Any) -> Any:
        def step(*arguments: Any) -> None:
            on_step(*arguments)
            if job.request.prompt == LOSE:
                FAULTS.raise_at("^aten::", None)
            elif job.request.prompt == LOSE_IN_A_LIBRARY:
                FAULTS.lose_device()
                raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED")

        return generate(job, step)

    ours.generate = generate_or_lose  # type: ignore[method-assign]
    return ours
