"""Attaches LoRAs from models.toml for one job, through peft."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.adapters import lora_layers
from gpu_worker.pipeline.execution import device_errors
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS
from gpu_worker.pipeline.loading.loaded_model import unsupported


@contextlib.contextmanager
def attach(pipe: Any, context: GenerationContext) -> Iterator[None]:
    """Attach the request's LoRAs to the pipeline's networks, and unload them afterwards.

    The networks are then the same byte for byte: peft wraps layers and does not change weights.

    Raises:
        Unsupported: the pipeline has no LoRAs, or one is for another model family.
        ModelsError: a name is not in models.toml.
    """
    request = context.request
    if not request.loras:
        yield
        return
    names = [lora.name for lora in request.loras]
    if not hasattr(pipe, "load_lora_weights"):
        raise unsupported("loras", names, pipe, "does not support LoRAs")
    files = [context.assets.file("loras", name) for name in names]
    # peft makes attributes of adapter names, and a user's name may contain a dot.
    adapters = [f"lora_{number}" for number in range(len(names))]
    with device_errors.undo_at_end(context.loaded.device, pipe.unload_lora_weights):
        for name, adapter, file in zip(names, adapters, files, strict=True):
            _load(pipe, name, adapter, file)
        pipe.set_adapters(adapters, [lora.weight for lora in request.loras])
        yield


def _load(pipe: Any, name: str, adapter: str, file: Path) -> None:
    keys: list[str] = []
    try:
        with warnings.catch_warnings(), _converted_keys(pipe, keys):
            # peft warns about a second adapter, which the request asks for.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            tensors = lora_layers.readable(pipe, file)
            pipe.load_lora_weights(
                str(file.parent) if tensors is None else tensors,
                weight_name=file.name,
                adapter_name=adapter,
                use_safetensors=True,
                local_files_only=True,
            )
    except DEVICE_ERRORS:
        raise
    except ModelsError as error:
        raise unsupported("loras", name, pipe, f"cannot load this LoRA: {error}") from error
    except Exception as error:  # peft and the many LoRA formats raise many types
        message = " ".join(str(error).split())[:300]
        reason = f"cannot load this LoRA; it may be for another model family: {message}"
        raise unsupported("loras", name, pipe, reason) from error
    layers = dict.fromkeys(map(lora_layers.layer_of, keys))
    missing = lora_layers.left_out(pipe, adapter, list(layers))
    # diffusers only logs the keys that match no layer.
    if len(missing) == len(layers):
        reason = "has no layers for this LoRA, which is made for another model family"
        raise unsupported("loras", name, pipe, reason)
    if missing:
        count = f"lacks {len(missing)} of the {len(layers)} layers that this LoRA changes"
        raise unsupported("loras", name, pipe, f"{count}, such as {missing[0]!r}")


@contextlib.contextmanager
def _converted_keys(pipe: Any, keys: list[str]) -> Iterator[None]:
    """Fill `keys` with diffusers' names of the tensors in a file while it is loaded."""

    def lora_state_dict(*arguments: Any, **options: Any) -> Any:
        converted = type(pipe).lora_state_dict(*arguments, **options)
        keys.extend(converted[0] if isinstance(converted, tuple) else converted)
        return converted

    pipe.lora_state_dict = lora_state_dict
    try:
        yield
    finally:
        del pipe.lora_state_dict
