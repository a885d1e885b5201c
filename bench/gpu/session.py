"""What the cases of a part share: the folder of models, the worker's pipelines, earlier results.

A model of real size is saved once for all parts, with random weights.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from bench import architectures
from bench.architectures import Architecture
from bench.gpu import card
from bench.gpu.ledger import Line
from gpu_worker.pipeline.execution import machine_size
from gpu_worker.pipeline.loading.loaded_model import LoadedModel
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.cuda_matrix.cases import LooseBench
from tests.support.pipeline_bench import PROMPT

MODELS = ("sd15", "sd21", "xl")
BUILT_IN = "demo"
TINY_SIDE_PX, TINY_STEPS = 32, 4


class CardBench(LooseBench):
    """The worker's pipeline with its model on the card."""

    @property
    def placement(self) -> str:
        """Return the MACHINE_SIZE at which the model is placed now."""
        return self._loaded.placement

    @property
    def side_px(self) -> int:
        """Return the side of the model's own images."""
        return self._loaded.default_side_px()

    @property
    def _loaded(self) -> LoadedModel:
        assert self.ours._loaded is not None
        return self.ours._loaded


class Session:
    """One process's view of the run."""

    def __init__(self, work: Path, earlier: list[Line]) -> None:
        self.work = work
        self.numbers = {line.key: line.numbers for line in earlier if not line.problems}
        """What earlier cases measured."""

        self._current: dict[str, CardBench] = {}

    def architecture(self, name: str) -> Architecture:
        """Return a model's size; without a real card a tiny one has its place."""
        known = architectures.ARCHITECTURES[name]
        if not card.is_make_believe():
            return known
        return dataclasses.replace(known, side_px=TINY_SIDE_PX, steps=TINY_STEPS)

    def build(self, known: Architecture, dtype: torch.dtype) -> Any:
        """Return the pipeline of an architecture on the CPU."""
        if not card.is_make_believe():
            return architectures.build(known, dtype)
        tiny = tiny_adapters.build_xl() if known.name == "xl" else tiny_models.build()
        return tiny.to(dtype)

    def model(self, name: str) -> Path:
        """Return the directory of a model in float16, which is saved if it is not there yet."""
        folder = self.work / "models" / name
        if not folder.exists():
            draft = folder.with_name(f"{name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            pipe = self.build(self.architecture(name), torch.float16)
            pipe.save_pretrained(draft)
            draft.rename(folder)
        return folder

    def pipeline(self, name: str, **settings: str) -> CardBench:
        """Return the worker's own pipeline on the card, with the model of an architecture."""
        self.model(name)
        return self.bench(self.work, name, **settings)

    def current(self, model: str) -> CardBench:
        """Return a model's pipeline at MACHINE_SIZE=big, which further cases of it share.

        `demo` is the built-in model. Another model's pipeline is let go of.
        """
        if model not in self._current:
            self.forget()
            is_built_in = {"SDE_MODEL": "demo"} if model == BUILT_IN else {}
            folder = self.work if is_built_in else self.model(model).parents[1]
            self._current[model] = self.bench(folder, model, MACHINE_SIZE="big", **is_built_in)
        return self._current[model]

    def forget(self) -> None:
        """Let go of the shared pipeline and of its memory."""
        self._current.clear()
        machine_size.free(card.DEVICE)

    def bench(self, folder: Path, model: str, **settings: str) -> CardBench:
        """Return the worker's pipeline on the card with the model in `folder/models`."""
        settings = {"SDE_DEVICE": "cuda", "SDE_GPU": "0", **settings}
        return CardBench(folder, model, **settings)

    def steps(self, wanted: int) -> int:
        """Return a number of steps, which is smaller where nothing has a time of its own."""
        return min(wanted, TINY_STEPS) if card.is_make_believe() else wanted


def prompt(**fields: Any) -> dict[str, Any]:
    """Return a request with the prompt and the seed of all measurements."""
    return {"prompt": PROMPT, "seed": 7, **fields}
