"""The diffusers pipeline: find the model, load it, make one picture.

With machine_size.py the only module that imports torch or diffusers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForText2Image, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from gpu_worker import machine_size
from gpu_worker.generation import SIDE_MULTIPLE_PX, GenerationRequest, Job
from gpu_worker.runner import DeviceLost, OutOfMemory
from gpu_worker.settings import WorkerSettings

DEMO_MODEL = Path(__file__).parent / "demo_model"


class ModelNotFound(ValueError):
    """SDE_MODEL names nothing that can be loaded; the text says what was looked for."""


class DiffusersPipeline:
    """One loaded text-to-image pipeline on one device."""

    def __init__(
        self, pipe: Any, model: str, size: machine_size.Size, device: torch.device
    ) -> None:
        self._pipe = pipe
        self._size: machine_size.Size = size
        self.facts: dict[str, Any] = {
            "model": model,
            "device": _device_name(device),
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "machine_size": size,
            "scheduler": type(pipe.scheduler).__name__,
            "diffusers": diffusers.__version__,
            "torch": torch.__version__,
        }

    def generate(self, job: Job, on_step: Callable[[int, int], None]) -> Image.Image:
        """See `gpu_worker.runner.Pipeline.generate`."""
        try:
            return self._generate(job.request, on_step)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(self._memory_sentence()) from error
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error).splitlines()[0]) from error
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def default_side_px(self) -> int:
        """The model's own size, bounded by what MACHINE_SIZE affords, in pixels."""
        config = getattr(self._pipe, "unet", None) or self._pipe.transformer
        sample = config.config.sample_size
        native = int(sample) * int(self._pipe.vae_scale_factor)
        side = min(native, machine_size.SWITCHES[self._size].max_default_side_px)
        return side - side % SIDE_MULTIPLE_PX

    def _generate(
        self, request: GenerationRequest, on_step: Callable[[int, int], None]
    ) -> Image.Image:
        side = self.default_side_px()

        def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
            on_step(index + 1, int(pipe.num_timesteps))
            return tensors

        # The generator lives on the CPU: a seed means the same noise on every device.
        output = self._pipe(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt or None,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            width=request.width or side,
            height=request.height or side,
            generator=torch.Generator("cpu").manual_seed(request.seed or 0),
            callback_on_step_end=step_ended,
        )
        image: Image.Image = output.images[0]
        return image

    def _memory_sentence(self) -> str:
        smaller = machine_size.next_smaller(self._size)
        advice = f"MACHINE_SIZE={smaller}" if smaller else "a smaller picture"
        return (
            f"out of memory with MACHINE_SIZE={self._size} on {self.facts['device']}: try {advice}"
        )


def load(settings: WorkerSettings) -> DiffusersPipeline:
    """The factory that SDE_PIPELINE names by default.

    Raises:
        ModelNotFound: SDE_MODEL names nothing loadable.
        ValueError: SDE_DEVICE is not on this machine.
    """
    _quiet()
    device = machine_size.choose_device(settings.device, settings.gpu)
    size = settings.machine_size or machine_size.choose_size(machine_size.memory_bytes(device))
    pipe = _from_source(settings, machine_size.choose_dtype(device))
    pipe.set_progress_bar_config(disable=True)
    machine_size.apply(pipe, size, device)
    return DiffusersPipeline(pipe, settings.model, size, device)


def _from_source(settings: WorkerSettings, dtype: torch.dtype) -> Any:
    """demo, a directory, a .safetensors file or a hub id; safetensors only, never remote code."""
    name = settings.model
    common = {"dtype": dtype, "use_safetensors": True}
    if name == "demo":
        return AutoPipelineForText2Image.from_pretrained(str(DEMO_MODEL), **common)
    path = Path(name)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelNotFound(f"SDE_MODEL={name}: the directory has no model_index.json")
        return AutoPipelineForText2Image.from_pretrained(str(path), **common)
    cache_dir = None if os.environ.get("HF_HOME") else str(settings.model_cache)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelNotFound(f"SDE_MODEL={name}: there is no such file")
        return _single_file_class(path).from_single_file(
            str(path), dtype=dtype, cache_dir=cache_dir, config=_single_file_config(path)
        )
    if path.is_absolute() or path.suffix in (".ckpt", ".bin", ".pt") or name.count("/") != 1:
        raise ModelNotFound(
            f"SDE_MODEL={name}: is neither demo, nor a directory, nor a .safetensors file, "
            "nor a hub id such as stabilityai/stable-diffusion-2-1"
        )
    return AutoPipelineForText2Image.from_pretrained(name, cache_dir=cache_dir, **common)


def _single_file_class(path: Path) -> Any:
    """SDXL checkpoints carry a second text encoder under this name; SD 1.x and 2.x do not."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    is_xl = any(name.startswith("conditioner.embedders.1.") for name in names)
    return StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline


def _single_file_config(path: Path) -> str | None:
    """Such a file holds weights alone: sizes and vocabulary come from the directory of the same
    name beside it, in diffusers' layout, or (None) from the hub by what the weights look like.
    """
    beside = path.with_suffix("")
    return str(beside) if (beside / "model_index.json").is_file() else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _quiet() -> None:
    # diffusers logs truncated prompts and both libraries warn about what the operator cannot mend.
    from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
