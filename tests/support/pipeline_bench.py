"""A worker's pipeline on the CPU with a tiny model, jobs for it, and diffusers itself beside it."""

from __future__ import annotations

import contextlib
import gc
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image

from gpu_worker import pipeline
from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline_api import GeneratedImage
from gpu_worker.settings import WorkerSettings, load
from tests.support import masked_images
from tests.support.builders import tiny_adapters

UUID = "00000000-0000-4000-8000-000000000000"
PROMPT = "a large red circle on a blue background"


class Halt(BaseException):
    """As the runner stops a job: no Exception."""


class Bench:
    """`ours` is the service's pipeline on the model in `folder/models/<model>`."""

    def __init__(self, folder: Path, model: str, **environ: str | None) -> None:
        self.folder = folder
        self.model = folder / "models" / model
        self.ours = pipeline.load(
            load(
                WorkerSettings,
                {
                    name: value
                    for name, value in {
                        "SDE_DATA_DIR": str(folder),
                        "SDE_DEVICE": "cpu",
                        "SDE_MODEL": str(self.model),
                        "MACHINE_SIZE": "big",
                        **environ,
                    }.items()
                    if value is not None
                },
            )
        )
        self._freeze()

    def _freeze(self) -> None:
        # Each job ends with a collection, which looks at all of torch, diffusers and transformers.
        gc.collect()
        gc.freeze()

    @property
    def pipe(self) -> Any:
        assert self.ours._loaded is not None
        return self.ours._loaded.pipe

    def put(self, image: Image.Image, **how: Any) -> str:
        return tiny_adapters.put(self.folder / "inputs" / UUID, image, **how)

    def make(self, on_step: Any = None, **given: Any) -> list[GeneratedImage]:
        asked = {"prompt": PROMPT, "seed": 7, "num_inference_steps": 2, **given}
        request = GenerationRequest.model_validate(asked)
        job = Job(sequence=1, uuid=UUID, created_time="2026-01-01T00:00:00Z", request=request)
        return self.ours.generate(job, on_step or (lambda *_: None))

    def pixels(self, **given: Any) -> bytes:
        return self.make(**given)[0].image.tobytes()

    def halted(self, **given: Any) -> None:
        """The job is stopped after its first step."""

        def halt(step: int, steps: int, preview: object = None) -> None:
            raise Halt

        with contextlib.suppress(Halt):
            self.make(on_step=halt, **given)
            raise AssertionError("the job was not stopped")


def write_library(folder: Path, **kinds: dict[str, dict[str, Any]]) -> None:
    """`models.toml` in the models folder."""
    lines = []
    for kind, parts in kinds.items():
        for name, part in parts.items():
            lines.append(f'[{kind}."{name}"]')
            lines += [f"{key} = {_toml(value)}" for key, value in part.items()]
    (folder / "models" / "models.toml").write_text("\n".join(lines) + "\n")


def _toml(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"


def in_own_memory(pipe: Any) -> Any:
    """The pipeline, its weights in memory that torch allocated: a mapped file's sum otherwise."""
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            for weight in (*module.parameters(), *module.buffers()):
                weight.data = weight.data.clone()
    return pipe


def direct(pipe: Any, **given: Any) -> bytes:
    """The pixels that diffusers gives when it is called by hand; under a mask, with the sent
    image put back where the mask is black."""
    in_own_memory(pipe)
    pipe.set_progress_bar_config(disable=True)
    if "clip_skip" in given and not hasattr(pipe.text_encoder, "text_model"):
        # diffusers 0.42 fails with the flat CLIPTextModel of transformers 5.6 and later.
        pipe.text_encoder.__dict__["text_model"] = pipe.text_encoder
    arguments = {"prompt": PROMPT, "num_inference_steps": 2, **given}
    generator = torch.Generator("cpu").manual_seed(7)
    image: Image.Image = pipe(**arguments, generator=generator).images[0]
    if "mask_image" in given:
        image = masked_images.with_sent_pixels(image, given["image"], given["mask_image"])
    return image.tobytes()


def reference(bench: Bench, kind: str, task: str = "Text2Image", **parts: Any) -> Any:
    """A pipeline of the bench's model, loaded by diffusers alone."""
    cls = getattr(diffusers, kind)
    pipe = cls.from_pretrained(bench.model, use_safetensors=True)
    if task == "Text2Image" and not parts:
        return pipe
    return getattr(diffusers, f"AutoPipelineFor{task}").from_pipe(pipe, **parts)
