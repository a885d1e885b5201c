"""SDE_QUANTIZATION: a UNet's or a transformer's weights in fewer bits, by diffusers' quantizers.

Says what diffusers is to be told, refuses what cannot be, and names in records what was done.
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
from gpu_worker.pipeline.loading import machine_size
from gpu_worker.settings import WorkerSettings

_PARTS = ["unet", "transformer"]


def config(settings: WorkerSettings, dtype: torch.dtype) -> PipelineQuantizationConfig | None:
    """What diffusers takes for it; None when nothing is to be quantised.

    Raises:
        ModelsError: the library is not installed, or does not quantise on this device.
    """
    wanted = settings.quantization
    if wanted == "none":
        return None
    _check(wanted, machine_size.choose_device(settings.device, settings.gpu))
    if wanted == "torchao-int8":
        from torchao.quantization import Int8WeightOnlyConfig

        weights_only = diffusers.TorchAoConfig(Int8WeightOnlyConfig())
        return PipelineQuantizationConfig(quant_mapping=dict.fromkeys(_PARTS, weights_only))
    if wanted == "quanto-int8":
        int8 = diffusers.QuantoConfig(weights_dtype="int8")
        return PipelineQuantizationConfig(quant_mapping=dict.fromkeys(_PARTS, int8))
    few = wanted == "bitsandbytes-4bit"
    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return PipelineQuantizationConfig(
        quant_backend="bitsandbytes_4bit" if few else "bitsandbytes_8bit",
        quant_kwargs=options if few else {"load_in_8bit": True},
        components_to_quantize=_PARTS,
    )


def _check(wanted: str, device: torch.device) -> None:
    library = quantization_libraries.LIBRARIES[wanted]
    if device.type not in library.devices:
        others = [
            name
            for name, each in quantization_libraries.LIBRARIES.items()
            if device.type in each.devices
        ]
        raise ModelsError(
            f"SDE_QUANTIZATION={wanted}: diffusers has {library.package} quantise on "
            f"{' or '.join(library.devices)} only, and this worker's device is {device.type}; "
            f"there it can be {' or '.join(others)}"
        )
    try:
        is_there = importlib.util.find_spec(library.module) is not None
    except ModuleNotFoundError:  # what it lies in is not there either
        is_there = False
    if not is_there:
        raise ModelsError(
            f"SDE_QUANTIZATION={wanted}: {library.package} is not installed; "
            f"pip install 'stable-diffusion-environment[{library.extra}]'"
        )


def current_device(settings: WorkerSettings) -> torch.cuda.device:
    """Within, the worker's GPU is CUDA's current one: there bitsandbytes puts what it quantises."""
    device = machine_size.choose_device(settings.device, settings.gpu)
    return torch.cuda.device(device.index if device.type == "cuda" else -1)


def check_done(pipe: Any, name: str, wanted: str) -> None:
    """diffusers passes over a pipeline that has neither part, and says nothing.

    Raises:
        ModelsError: nothing of this model was quantised.
    """
    if wanted != "none" and not any(method(getattr(pipe, part, None)) for part in _PARTS):
        raise ModelsError(
            f"{name}: SDE_QUANTIZATION={wanted}: {type(pipe).__name__} has nothing that diffusers "
            "would quantise: no UNet and no transformer"
        )


def method(part: Any) -> str | None:
    """diffusers' word for how a model was quantised: bitsandbytes, torchao, quanto or gguf."""
    quantizer = getattr(part, "hf_quantizer", None)
    return None if quantizer is None else str(quantizer.quantization_config.quant_method.value)


def facts(wanted: str) -> dict[str, Any]:
    """What a record says of it: the setting, and the version of the library that did it."""
    if wanted == "none":
        return {}
    package = quantization_libraries.LIBRARIES[wanted].package
    version = importlib.metadata.version(package)
    return {"quantization": wanted, "quantization_library": f"{package} {version}"}
