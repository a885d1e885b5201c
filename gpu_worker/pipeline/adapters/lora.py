"""LoRAs of models.toml for one job, through peft, and off again."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.adapters import lora_layers
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext


@contextlib.contextmanager
def attach(pipe: Any, context: GenerationContext) -> Iterator[None]:
    """The pipeline's networks have them within.

    They are loaded for each job and are gone after it: the networks are then byte for byte what
    they were, for peft wraps layers and leaves their weights alone.

    Raises:
        Unsupported: the pipeline takes none, or one was made for another family of models.
        ModelsError: models.toml does not know one.
    """
    request = context.request
    if not request.loras:
        yield
        return
    names = [lora.name for lora in request.loras]
    if not hasattr(pipe, "load_lora_weights"):
        raise unsupported("loras", names, pipe, "takes no LoRA")
    files = [context.assets.file("loras", name) for name in names]
    # Not their own names: peft makes attributes of them, and a dot would end one.
    adapters = [f"lora_{place}" for place in range(len(names))]
    try:
        for name, adapter, file in zip(names, adapters, files, strict=True):
            _load(pipe, name, adapter, file)
        pipe.set_adapters(adapters, [lora.weight for lora in request.loras])
        yield
    finally:
        pipe.unload_lora_weights()


def _load(pipe: Any, name: str, adapter: str, file: Path) -> None:
    keys: list[str] = []
    try:
        with warnings.catch_warnings(), _converted_keys(pipe, keys):
            # peft warns of a second adapter, which is what was asked for.
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
        raise unsupported("loras", name, pipe, f"cannot take this LoRA: {error}") from error
    except Exception as error:  # peft and the many formats of LoRAs fail in many ways
        reason = " ".join(str(error).split())[:300]
        why = f"cannot take this LoRA, made for another family of models? {reason}"
        raise unsupported("loras", name, pipe, why) from error
    layers = dict.fromkeys(map(lora_layers.layer_of, keys))
    missing = lora_layers.left_out(pipe, adapter, list(layers))
    # diffusers only logs the keys of a file that meet no layer.
    if len(missing) == len(layers):
        why = "has no layers for this LoRA: it was made for another family of models"
        raise unsupported("loras", name, pipe, why)
    if missing:
        count = f"has no place for {len(missing)} of this LoRA's {len(layers)} layers"
        raise unsupported("loras", name, pipe, f"{count}, such as {missing[0]!r}")


@contextlib.contextmanager
def _converted_keys(pipe: Any, keys: list[str]) -> Iterator[None]:
    """Within, `keys` gets the names that diffusers gives to the tensors of a file.

    It drops some of them while it converts, so the layers of a file are counted before too.
    """

    def lora_state_dict(*arguments: Any, **options: Any) -> Any:
        converted = type(pipe).lora_state_dict(*arguments, **options)
        keys.extend(converted[0] if isinstance(converted, tuple) else converted)
        return converted

    pipe.lora_state_dict = lora_state_dict
    try:
        yield
    finally:
        del pipe.lora_state_dict
