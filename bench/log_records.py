"""The results that bench/log.py stores: record number N is the same in every process."""

from __future__ import annotations

import base64
import random
import uuid as uuids
from collections.abc import Iterator
from typing import Any

from gpu_worker.contract.job import Job, Outcome, result_record
from gpu_worker.contract.request import GenerationRequest

Record = dict[str, Any]

_PROMPT = "a lighthouse on a cliff at dusk, waves, long exposure, film grain, number"


def uuid_of(number: int) -> str:
    """The uuid of the record of this number, the same in every process."""
    return str(uuids.UUID(int=random.Random(number).getrandbits(128), version=4))


def record(number: int, picture_bytes: int) -> Record:
    """A result as the worker writes it, with so many bytes of base64 for a picture."""
    request = GenerationRequest(prompt=f"{_PROMPT} {number}", width=64, height=64, seed=number)
    job = Job(
        uuid=uuid_of(number),
        sequence=number + 1,
        created_time="2026-01-01T00:00:00.000+00:00",
        request=request,
    )
    picture = random.Random(number).randbytes(picture_bytes * 3 // 4)
    metadata: dict[str, object] = {"model": "demo", "device": "cpu", "machine_size": "tiny"}
    metadata |= {"attempt": 1, "seconds": 1.5}
    return result_record(
        job,
        outcome=Outcome.SUCCEEDED,
        errors=[],
        data=base64.b64encode(picture).decode("ascii"),
        metadata=metadata,
    )


def records(count: int, picture_bytes: int) -> Iterator[Record]:
    """The first so many."""
    return (record(number, picture_bytes) for number in range(count))
