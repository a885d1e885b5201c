"""What a worker says of its process and of the model that is loaded. Asks no files."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from gpu_worker.pipeline.loading.loaded_model import Loaded


def of_process(device: torch.device, machine_size: str) -> dict[str, Any]:
    """Where it runs and by which libraries, whatever it does."""
    return {
        "device": device_name(device),
        "machine_size": machine_size,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }


def of_model(loaded: Loaded) -> dict[str, Any]:
    """What every picture that the model draws has in common."""
    return {
        "model": loaded.name,
        "pipeline": type(loaded.pipe).__name__,
        "dtype": str(loaded.pipe.dtype).removeprefix("torch."),
        "scheduler": type(loaded.pipe.scheduler).__name__,
    }


def device_name(device: torch.device) -> str:
    """A GPU's product name, else `cpu` or `mps`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
