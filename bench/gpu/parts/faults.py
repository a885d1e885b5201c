"""What the whole service does when the card breaks, hangs, or its worker is killed.

Gateway, worker and supervisord are real. Each case ends with a job that must be drawn as before.
"""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.gpu import card, faulty
from bench.gpu.case import Part, expect, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import Session, prompt
from tests.support.service import Service, eventually, running

STEPS = 4
STEP_TIMEOUT_S = 25
"""Longer than the start of a worker's first job, shorter than the kernel that never ends."""

LOST_EXIT = 70
"""The exit code of a worker whose card is lost (EX_SOFTWARE)."""


def part() -> Part:
    """Return the cases."""
    return Part(
        {
            "assertion": assertion,
            "assertion in cuBLAS": assertion_in_cublas,
            "endless kernel": endless_kernel,
            "killed in a wait": killed_in_a_wait,
        },
        case_s=120,
    )


@contextmanager
def service(**settings: str) -> Iterator[Service]:
    """Yield a service with the built-in model on the card, whose jobs can break it."""
    folder = Path(tempfile.mkdtemp(prefix="sde-"))  # short: a unix socket's path is limited
    try:
        with running(
            folder,
            "supervisor",
            SDE_PIPELINE="bench.gpu.faulty:load",
            SDE_DEVICE="cuda",
            SDE_MAX_ATTEMPTS="1",
            SDE_STEP_TIMEOUT_S=str(STEP_TIMEOUT_S),
            **settings,
        ) as running_service:
            yield running_service
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def assertion(_: Session, line: Line) -> None:
    """Break the card; the worker must end with its own exit code."""
    _break(line, "assertion")


def assertion_in_cublas(_: Session, line: Line) -> None:
    """Break the card so that cuBLAS is the first to notice."""
    _break(line, "assertion in cuBLAS")


def _break(line: Line, fault: str) -> None:
    with service() as its:
        expected = _draw(its)
        start = time.monotonic()
        record = its.result(its.submit(f"{faulty.PREFIX}{fault}", num_inference_steps=STEPS))
        line.numbers["record_s"] = time.monotonic() - start
        _recover(its, line, expected, start)
        errors = " ".join(record["errors"])
        line.numbers["errors"] = errors
        code = _exit_code(its)
        line.numbers["exit_code"] = code
        expect(line, record["data"] is None, "the job has an image although the card broke")
        expect(line, "the device was lost" in errors, f"the record says: {errors}")
        expect(line, code == LOST_EXIT, f"the worker ended with {code}, not {LOST_EXIT}")


def endless_kernel(_: Session, line: Line) -> None:
    """Hang the card; the deadline of a step must end the worker."""
    with service() as its:
        expected = _draw(its)
        start = time.monotonic()
        uuid = its.submit(f"{faulty.PREFIX}endless kernel", num_inference_steps=STEPS)
        record = its.result(uuid)
        line.numbers["record_s"] = time.monotonic() - start
        _recover(its, line, expected, start)
        _check_death(line, record)
        expect(line, "Timeout" in its.output(), "no deadline is in the log")


def killed_in_a_wait(_: Session, line: Line) -> None:
    """Kill the worker while it waits for the card; its memory must be free afterwards."""
    free_before = _free_gib()
    with service() as its:
        expected = _draw(its)
        uuid = its.submit(f"{faulty.PREFIX}endless kernel", num_inference_steps=STEPS)
        begun = its.data_dir / faulty.BEGUN
        eventually(begun.exists, "the kernel is queued")
        start = time.monotonic()
        worker = its.processes("gpu_worker")[0]
        worker.send_signal(signal.SIGKILL)
        worker.wait(60)
        line.numbers["death_s"] = time.monotonic() - start
        record = its.result(uuid)
        _recover(its, line, expected, start)
        _check_death(line, record)
    free_after = _free_gib()
    line.numbers |= {"free_gib_before": free_before, "free_gib_after": free_after}
    line.numbers = rounded(line.numbers)
    expect(line, free_after > free_before - 0.5, "the dead worker still holds memory of the card")


def _check_death(line: Line, record: dict[str, Any]) -> None:
    errors = " ".join(record["errors"])
    line.numbers["errors"] = errors
    expect(line, record["data"] is None, "the job has an image although its worker died")
    expect(line, "died 1 time" in errors, f"the record says: {errors}")


def _draw(its: Service) -> str:
    """Return the digest of the image that every case begins and ends with."""
    request = prompt(num_inference_steps=STEPS)
    record = its.result(its.submit(request.pop("prompt"), **request))
    if record["errors"]:
        raise ValueError(f"a plain job failed: {' '.join(record['errors'])}")
    return str(record["pixels_sha256"])


def _recover(its: Service, line: Line, expected: str, start: float) -> None:
    """Wait for the next worker and draw once more."""
    its.wait_available()
    line.numbers["available_s"] = time.monotonic() - start
    digest = _draw(its)
    line.numbers["next_image_s"] = time.monotonic() - start
    line.numbers = rounded(line.numbers)
    expect(line, digest == expected, "the image after the fault is not the one before")


def _exit_code(its: Service) -> int | None:
    """Return the last exit code of a worker, as supervisord's log has it."""
    log = (its.data_dir / "run" / "supervisord.log").read_text()
    codes = re.findall(r"exited: gpu-\d+ \(exit status (\d+)", log)
    return int(codes[-1]) if codes else None


def _free_gib() -> float:
    torch.cuda.empty_cache()
    return float(torch.cuda.mem_get_info(card.DEVICE)[0] / card.GIB)
