"""The worker's pipeline on a make-believe CUDA device: every feature, family, size and error.

Each part runs in a process of its own, because the devices are there for a whole process.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cuda_matrix import reports
from tests.support.cuda_matrix.reports import Fault

PARTS = ("device", "sd", "xl", "families", "interruptions", "halves", "fitting", "restoring")

FAULTS = [
    # diffusers caches its positions in a function, with the model: no number in the review.
    Fault(0, r"qwen-image \w+", r"540672 bytes are left after the unload"),
    # Its group offload leaves the scale of Gemma's embedding on the device, a single number.
    Fault(0, "(sana|sana-sprint|lumina|lumina2) tiny", "devices of text_encoder is"),
]
"""All cases that may fail, each for a fault of the product or of a library.

The list may only become shorter.
"""

WAITS_A_STEP = {
    "DDIMScheduler": 6,
    "DDPMScheduler": 13,
    "LCMScheduler": 3,
    "PNDMScheduler": 3,
    "TCDScheduler": 4,
}
"""What diffusers' schedulers make the host wait in a step. All others have none."""

COPIES_A_STEP = {
    "DDPMScheduler": 1,
    "EulerAncestralDiscreteScheduler": 1,
    "LCMScheduler": 1,
    "UniPCMultistepScheduler": 6,
}
"""Copies to the device in a step, as the schedulers do them. All others have none."""

COPIES_OF_LAYERS = 208
"""Copies to the device in a step at `tiny`: the weights of each layer of the tiny UNet."""

WAITS_OF_LAYERS = 233
"""Waits in a step at `tiny`: diffusers' group offload waits twice for each of 116 layers, and once.

It waits for the copy before the next one begins, and for a layer's computation before its weights
go. So no more than two layers are on the device. Pinned or not, the number is the same.
"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", PARTS)
def test_each_case_is_as_on_the_cpu(part: str, tmp_path: Path) -> None:
    lines = reports.run(part, tmp_path)
    print(reports.summary(part, lines))
    assert reports.unexplained(lines, FAULTS) == []
    assert reports.mended(lines, FAULTS) == []


@pytest.mark.timeout(1800)
def test_a_step_waits_and_copies_no_more_than_its_scheduler_does(tmp_path: Path) -> None:
    lines = reports.run("steps", tmp_path)
    print(reports.summary("steps", lines))
    assert {line["name"]: line["problems"] for line in lines if line["problems"]} == {}
    costs = {}
    expected = {}
    for line in lines:
        scheduler, size = line["name"].split()
        numbers = line["numbers"]
        print(f"{line['name']}: {numbers['waits']:g} waits, {numbers['to_device']:g} copies a step")
        costs[line["name"]] = tuple(numbers[key] for key in ("waits", "to_device", "from_device"))
        waits, copies = WAITS_A_STEP.get(scheduler, 0), COPIES_A_STEP.get(scheduler, 0)
        if size == "tiny":
            waits, copies = waits + WAITS_OF_LAYERS, copies + COPIES_OF_LAYERS
        expected[line["name"]] = (waits, copies, 0)
    assert costs == expected


def test_a_fault_must_be_there_and_must_explain_all() -> None:
    fault = Fault(1, "sd (big|tiny) text", "no memory")
    lines = [
        {"name": "sd big text", "difference": 0, "problems": ["no memory at all"]},
        {"name": "sd tiny text", "difference": 0, "problems": []},
        {"name": "sd big lora", "difference": 5, "problems": []},
        {"name": "sd little text", "difference": 4, "problems": ["no memory"]},
    ]
    assert reports.unexplained(lines, [fault]) == [
        "sd big lora: the images differ by 5",
        "sd little text: no memory",
    ]
    assert reports.mended(lines, [fault]) == [
        "finding 1: sd tiny text has no problem like 'no memory'"
    ]
