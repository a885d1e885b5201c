"""Configures diffusers to quantize a UNet's or transformer's weights, as SDE_QUANTIZATION sets.

It checks the setting for the device and the model, and returns the metadata for records.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

import diffusers
import torch
from diffusers.quantizers import PipelineQuantizationConfig

from gpu_worker import quantization_libraries
from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.execution import machine_size
from gpu_worker.pipeline.execution.device import choose_device
from gpu_worker.settings import WorkerSettings

_PARTS = ["unet", "transformer"]


def config(settings: WorkerSettings, dtype: torch.dtype) -> PipelineQuantizationConfig | None:
    """Return diffusers' configuration; None when SDE_QUANTIZATION is `none`.

    Raises:
        ModelsError: the library is not installed, or does not support this device.
    """
    setting = settings.quantization
    if setting == "none":
        return None
    _check(setting, choose_device(settings.device, settings.gpu))
    if setting == "torchao-int8":
        from torchao.quantization import Int8WeightOnlyConfig

        weights_only = diffusers.TorchAoConfig(Int8WeightOnlyConfig())
        return PipelineQuantizationConfig(quant_mapping=dict.fromkeys(_PARTS, weights_only))
    if setting == "quanto-int8":
        int8 = diffusers.QuantoConfig(weights_dtype="int8")
        return PipelineQuantizationConfig(quant_mapping=dict.fromkeys(_PARTS, int8))
    is_4bit = setting == "bitsandbytes-4bit"
    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return PipelineQuantizationConfig(
        quant_backend="bitsandbytes_4bit" if is_4bit else "bitsandbytes_8bit",
        quant_kwargs=options if is_4bit else {"load_in_8bit": True},
        components_to_quantize=_PARTS,
    )


def _check(setting: str, device: torch.device) -> None:
    library = quantization_libraries.LIBRARIES[setting]
    if device.type not in library.devices:
        alternatives = [
            name
            for name, candidate in quantization_libraries.LIBRARIES.items()
            if device.type in candidate.devices
        ]
        raise ModelsError(
            f"SDE_QUANTIZATION={setting}: diffusers supports {library.package} on "
            f"{' or '.join(library.devices)} only, and this worker's device is {device.type}, "
            f"which supports {' or '.join(alternatives)}"
        )
    try:
        is_installed = importlib.util.find_spec(library.module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        is_installed = False
    if not is_installed:
        raise ModelsError(
            f"SDE_QUANTIZATION={setting}: {library.package} is not installed; "
            f"pip install 'stable-diffusion-environment[{library.extra}]'"
        )


def current_device(settings: WorkerSettings) -> torch.cuda.device:
    """Make the worker's GPU the current one, where bitsandbytes puts quantized weights."""
    device = choose_device(settings.device, settings.gpu)
    return torch.cuda.device(device.index if device.type == "cuda" else -1)


def check_quantized(pipe: Any, name: str, setting: str) -> None:
    """Check that weights are quantized; diffusers silently skips a model without these parts.

    Raises:
        ModelsError: nothing of this model is quantized.
    """
    if setting != "none" and not any(
        machine_size.quantization_method(getattr(pipe, part, None)) for part in _PARTS
    ):
        raise ModelsError(
            f"{name}: SDE_QUANTIZATION={setting}: {type(pipe).__name__} has nothing that diffusers "
            "can quantize: no UNet and no transformer"
        )


def metadata(setting: str) -> dict[str, Any]:
    """Return a record's metadata: the setting, and the name and version of the library."""
    if setting == "none":
        return {}
    package = quantization_libraries.LIBRARIES[setting].package
    version = importlib.metadata.version(package)
    return {"quantization": setting, "quantization_library": f"{package} {version}"}
