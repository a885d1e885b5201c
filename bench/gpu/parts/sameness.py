"""Whether a request gives the same pixels: again, after others, elsewhere, after errors."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import torch

from bench.gpu import card, pictures
from bench.gpu.case import Part, by_model, expect
from bench.gpu.ledger import Line
from bench.gpu.session import BUILT_IN, Session
from gpu_worker.pipeline.loading.sources import DEMO_MODEL

MODELS = (BUILT_IN, "sd15", "xl")
STEPS = 6
TIMES = 5
SEED = 7


def part() -> Part:
    """Return the cases of each model."""
    return Part(by_model(MODELS, _CASES), case_s=90)


def _digests(session: Session, model: str, **fields: Any) -> list[str]:
    request = {"num_inference_steps": session.steps(STEPS), "seed": SEED, **fields}
    return pictures.digests(session.current(model).make(**request))


def _expected(session: Session, model: str) -> str:
    """Return the digest of the first case; a later process has it from the results."""
    numbers = session.numbers.get(("sameness", f"{model} again"), {})
    return str(numbers.get("digest") or _digests(session, model)[0])


def _check(line: Line, digests: list[str], expected: str, *, moved: bool = False) -> None:
    """Compare digests. Weights that lie elsewhere in memory may round otherwise on a CPU."""
    others = sum(digest != expected for digest in digests)
    line.numbers = {"digest": digests[0][:16], "images": len(digests), "others": others}
    is_fault = others and not (moved and card.is_make_believe())
    expect(line, not is_fault, f"{others} of {len(digests)} images have other pixels")


def again(session: Session, line: Line, model: str) -> None:
    """Draw the same image several times."""
    digests = [_digests(session, model)[0] for _ in range(TIMES)]
    _check(line, digests, digests[0])
    line.numbers["digest"] = digests[0]


def after_another_size(session: Session, line: Line, model: str) -> None:
    """Draw after an image of another size, which may choose other kernels for what follows."""
    expected = _expected(session, model)
    side = session.current(model).side_px + 64
    _digests(session, model, width=side, height=side)
    _check(line, _digests(session, model), expected)


def third_of_four(session: Session, line: Line, model: str) -> None:
    """Draw four images, and the third one alone."""
    four = _digests(session, model, num_images_per_prompt=4)
    alone = _digests(session, model, seed=SEED + 2)
    _check(line, [four[2], *alone], alone[0])
    expect(line, four[0] == _expected(session, model), "the first of four has other pixels")


def after_an_error(session: Session, line: Line, model: str) -> None:
    """Draw after a job that ran out of memory once, and thus ended at a smaller size."""
    expected = _expected(session, model)
    bench = session.current(model)
    errors = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")]

    def fail_once(step: int, steps: int, preview: Any = None) -> None:
        if errors:
            raise errors.pop()

    bench.make(num_inference_steps=2, on_step=fail_once)
    size = bench.placement
    digests = [_digests(session, model)[0] for _ in range(2)]
    _check(line, digests, digests[0])
    # Offload and tiles may round in another way, so other pixels are no fault here.
    line.numbers |= {
        "sizes": f"{size}, then {bench.placement}",
        "as_before": digests[0] == expected,
    }
    session.forget()  # the next case has a pipeline without this history


def in_another_process(session: Session, line: Line, model: str) -> None:
    """Draw in a process of its own."""
    if model == BUILT_IN:
        folder = session.work / "models" / BUILT_IN
        if not folder.exists():
            folder.symlink_to(DEMO_MODEL)
    expected = _expected(session, model)
    command = [sys.executable, "-m", "bench.gpu.one_job", str(session.work), model]
    command.append(str(session.steps(STEPS)))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    _check(line, json.loads(done.stdout.splitlines()[-1])["digests"], expected, moved=True)


def after_a_load(session: Session, line: Line, model: str) -> None:
    """Draw after the model was unloaded and loaded again."""
    expected = _expected(session, model)
    bench = session.current(model)
    bench.ours.unload()
    line.numbers["left_mib"] = pictures.allocated_mib()
    left = dict(line.numbers)
    _check(line, _digests(session, model), expected, moved=True)
    line.numbers |= left


_CASES: dict[str, Any] = {
    "again": again,
    "after another size": after_another_size,
    "third of four": third_of_four,
    "after a load": after_a_load,
    "after an error": after_an_error,
    "in another process": in_another_process,
}
