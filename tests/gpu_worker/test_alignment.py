"""The same weights give the same pixels wherever they lie in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from gpu_worker.pipeline.execution import alignment
from tests.support.misplaced import misplaced
from tests.support.service import ROOT

CPU = torch.device("cpu")

SHIFTS = (4, 24)
"""Bytes after a multiple of 64 at which a file's weights begin: aligned for single numbers, and
for the halves of a register."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """With instructions that want aligned operands: on newer ones of Intel's, MKL asks less."""
    folder = tmp_path_factory.mktemp("shifted")
    command = [
        sys.executable,
        "-m",
        "tests.support.shifted_weights",
        str(folder),
        *map(str, SHIFTS),
    ]
    environ = os.environ | {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_shift_of_the_weights_changes_no_pixel(drawn: dict[str, dict[str, str]]) -> None:
    one, other = (drawn[str(by)] for by in SHIFTS)
    assert {name for name in one if one[name] != other[name]} <= {"mapped"}
    assert one["again"] == one["plain"] == one["hooked plain"] == one["hooked again"]
    for added in ("lora", "refiner"):
        assert one[f"hooked {added}"] == one[added] != one["plain"]
    assert one["sd"] == one["one.safetensors"], "a single file is the directory's model"
    assert one["bits.gguf"] == one["flux.safetensors"]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="only MKL sums so")
def test_where_a_file_is_mapped_does_change_them(drawn: dict[str, dict[str, str]]) -> None:
    """What the other test protects from is there."""
    assert len({drawn[str(by)]["mapped"] for by in SHIFTS}) > 1


class Two(nn.Module):
    """Two layers that share a weight, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.register_buffer("places", torch.arange(5))


def places(module: nn.Module) -> list[int]:
    return [each.data_ptr() % alignment.BYTES for each in (*module.parameters(), *module.buffers())]


def test_parameters_stay_the_objects_that_they_are() -> None:
    module = Two().requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    kept = dict(module.named_parameters())
    for weight in (*module.parameters(), *module.buffers()):
        weight.data = misplaced(weight.data)
    sizes = [each.nbytes for each in (*module.parameters(), *module.buffers())]
    assert alignment.align(module, CPU) == sum(sizes)
    assert places(module) == [0, 0, 0, 0]
    assert dict(module.named_parameters()) == kept
    assert module.first.weight is module.second.weight
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    assert alignment.align(module, CPU) == 0, "nothing is copied twice"


def test_views_of_one_memory_stay_that() -> None:
    module = Two().requires_grad_(False)
    shared = misplaced(module.first.bias.data)
    module.first.bias.data = module.second.bias.data = shared
    assert alignment.align(module, CPU) == shared.nbytes
    assert module.first.bias.data_ptr() == module.second.bias.data_ptr()


def test_memory_layout_is_kept() -> None:
    conv = nn.Conv2d(8, 8, 3).requires_grad_(False)
    weight = misplaced(conv.weight.data.flatten()).view(8, 3, 3, 8).permute(0, 3, 1, 2)
    conv.weight.data = weight
    alignment.align(conv, CPU)
    assert places(conv) == [0, 0]
    assert conv.weight.stride() == weight.stride() and conv.weight.equal(weight)


def test_only_a_cpu_computes_with_the_memory_of_the_machine() -> None:
    module = Two().requires_grad_(False)
    module.first.bias.data = misplaced(module.first.bias.data)
    assert alignment.align(module, torch.device("cuda", 0)) == 0
    with torch.device("meta"):
        nothing = Two()
    assert alignment.align(nothing, CPU) == 0


def test_quantised_weights_are_made_of_aligned_ones() -> None:
    """In a process of its own: what quantises is imported by those that are told so."""
    program = """
import torch
from optimum.quanto import QLinear, freeze, qint8
from gpu_worker.pipeline.execution import alignment
from tests.support.misplaced import misplaced
layer = QLinear.from_module(torch.nn.Linear(8, 8), weights=qint8).requires_grad_(False)
freeze(layer)
weight = layer.weight
for name in weight.__tensor_flatten__()[0]:
    part = getattr(weight, name)
    part.data = misplaced(part.data)
before = layer(torch.ones(1, 8))
assert alignment.align(layer, torch.device("cpu")) > 0
for name in weight.__tensor_flatten__()[0]:
    assert getattr(weight, name).data_ptr() % alignment.BYTES == 0
assert torch.allclose(layer(torch.ones(1, 8)), before)
"""
    done: Any = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
