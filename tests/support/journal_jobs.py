"""Jobs as the journal holds them."""

from __future__ import annotations

from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest


def job(number: int) -> Job:
    return Job(
        uuid=f"00000000-0000-4000-8000-{number:012d}",
        sequence=number,
        created_time="2026-01-01T00:00:00.000+00:00",
        request=GenerationRequest(prompt=f"number {number}", seed=number),
        submission=f"{number:032x}:{'f' * 32}",
    )
