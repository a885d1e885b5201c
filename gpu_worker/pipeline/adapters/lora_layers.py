"""Converts the forms of LoRA files to the one that diffusers reads, and counts the applied layers.

A file for a UNet is read layer by layer. Files of other families are left to diffusers.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import lora_conversion_utils
from safetensors import safe_open
from safetensors.torch import load_file

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.adapters import lora_factors
from gpu_worker.pipeline.adapters.lora_factors import Layer

_KOHYA = {
    "unet": ("lora_unet_",),
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
}
_ORIGINAL = ("input_blocks", "middle_block", "output_blocks")
"""Blocks of a UNet as the original code names them."""
_RESNET = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
    "downsamplers_0_op": "downsamplers_0_conv",
}
_OLD = re.compile(r"_lora\.(down|up)\.weight$")
"""The end of a key in diffusers' first form, by attention processors."""
_WRAPPER = "base_model.model."
_DENOISER = re.compile(r"(?:model\.)?diffusion_model\.")

_OTHER_FORMS = {
    "DoRA": ("dora_scale", "lora_magnitude_vector"),
    "LoHa": ("hada_w",),
    "LoKr": ("lokr_w",),
}
"""Parts of keys that diffusers drops or refuses outside of UNets."""

_END = re.compile(r"\.(" + "|".join(sorted(map(re.escape, lora_factors.ENDS), reverse=True)) + ")$")
_TUNER = re.compile(
    r"(?:\.processor)?\.?(?:(to_[qkv]|to_out)_lora|lora(?:_[a-zA-Z_]+)?|lokr_\w+)(?:\.\w+)*$"
)
_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def readable(pipe: Any, file: Path) -> dict[str, torch.Tensor] | None:
    """Return the tensors of the file as diffusers reads them; None if it can read the file itself.

    Raises:
        ModelsError: some of its layers have a form that cannot be used.
    """
    if getattr(pipe, "unet", None) is None:
        _check_plain(file)
        return None
    tensors = load_file(file)
    if any(_OLD.search(key) for key in tensors):
        is_bare = not any(key.partition(".")[0] in _KOHYA for key in tensors)
        return {f"unet.{key}": tensor for key, tensor in tensors.items()} if is_bare else None
    layers, unknown = _layers(tensors)
    if not layers:
        raise ModelsError("its file has no layer of a LoRA")
    if unknown:
        count = f"an unknown form in {len(unknown)} of {len(tensors)} tensors"
        raise ModelsError(f"its file has {count}, such as {unknown[0]!r}")
    if _is_read_by_diffusers(layers):
        return None
    return _converted(pipe, layers, _peft_scale(file, layers))


def _check_plain(file: Path) -> None:
    """Check a file for a family without a UNet, of which diffusers reads only plain LoRAs.

    Raises:
        ModelsError: the file has other layers, which diffusers would leave out.
    """
    with safe_open(file, framework="pt") as tensors:
        keys = list(tensors.keys())
    for name, marks in _OTHER_FORMS.items():
        others = [key for key in keys if any(mark in key for mark in marks)]
        if others:
            reason = f"which this model family does not support, such as {others[0]!r}"
            raise ModelsError(f"its file has {len(others)} tensors of a {name}, {reason}")
    if any(key.startswith(_WRAPPER) for key in keys):
        raise ModelsError(
            f"its keys begin with {_WRAPPER}, which this model family does not support"
        )


def _is_read_by_diffusers(layers: dict[str, Layer]) -> bool:
    if not all(map(lora_factors.is_whole_lora, layers.values())):
        return False
    if all(map(_is_kohya, layers)):
        is_original = {
            any(block in stem for block in _ORIGINAL) for stem in layers if "text" not in stem
        }
        has_magnitudes = any(map(lora_factors.is_dora, layers.values()))
        # diffusers drops the original names where a file has both, and all `dora_scale`.
        return len(is_original) < 2 and not has_magnitudes
    is_prefixed = all(stem.partition(".")[0] in _KOHYA for stem in layers)
    return is_prefixed and not any({"alpha", "dora_scale"} & set(each) for each in layers.values())


def _layers(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, Layer], list[str]]:
    """Return the layers by the common part of their keys, and the keys of no layer."""
    layers: dict[str, Layer] = {}
    unknown = []
    for key, tensor in tensors.items():
        match = _END.search(key)
        if match is None:
            unknown.append(key)
        else:
            layers.setdefault(key[: match.start()], {})[match[1]] = tensor
    return layers, unknown


def _is_kohya(stem: str) -> bool:
    return stem.startswith(tuple(prefix for each in _KOHYA.values() for prefix in each))


def _kohya(stem: str) -> str:
    """Return kohya's name of the layer."""
    inner = stem.removeprefix(_WRAPPER)
    if _is_kohya(inner):
        return inner
    part, _, path = inner.partition(".")
    prefix = _KOHYA.get(part, ("",))[0]
    if not prefix:
        is_text = inner.startswith("text_model.")
        prefix = "lora_te_" if is_text else "lora_unet_"
        path = _DENOISER.sub("", inner, count=1)
    return prefix + path.replace(".", "_")


def _renamed(pipe: Any, labels: dict[str, str]) -> dict[str, str]:
    """Return the labels by stem, with diffusers' names for the blocks of the original code."""
    if not any(block in label for label in labels.values() for block in _ORIGINAL):
        return labels
    stems = {label: stem for stem, label in labels.items()}
    renamed = lora_conversion_utils._maybe_map_sgm_blocks_to_diffusers(stems, pipe.unet.config)
    for label, stem in renamed.items():
        for original, ours in _RESNET.items():
            label = label.replace(original, ours)
        labels[stem] = label
    return labels


def _model_layers(pipe: Any) -> dict[str, tuple[str, Any]]:
    """Return path and module of the pipeline's layers, by their names in kohya's files."""
    modules: dict[str, tuple[str, Any]] = {}
    for part, prefixes in _KOHYA.items():
        component = getattr(pipe, part, None)
        for path, module in component.named_modules() if component is not None else ():
            label = path.removeprefix("text_model.").replace(".", "_")
            label = label if part == "unet" else f"text_model_{label}"
            modules |= {f"{prefix}{label}": (f"{part}.{path}", module) for prefix in prefixes}
    return modules


def _converted(pipe: Any, layers: dict[str, Layer], scale: float | None) -> dict[str, torch.Tensor]:
    """Return the layers with peft's names, or kohya's if the model's paths differ there."""
    modules = _model_layers(pipe)
    labels = _renamed(pipe, {stem: _kohya(stem) for stem in layers})
    is_known = any(label in modules for label in labels.values())
    converted: dict[str, torch.Tensor] = {}
    broken, dora = [], []
    for stem, layer in layers.items():
        path, module = modules.get(labels[stem], (_guess(labels[stem], stem), None))
        weight = getattr(module, "weight", None)
        kernel = tuple(weight.shape[1:]) if weight is not None and weight.ndim == 4 else None
        pair = lora_factors.factors(layer, scale, kernel)
        if pair is None:
            broken.append(stem)
            continue
        ends = ("lora_A.weight", "lora_B.weight")
        name = path
        if not is_known:
            name, ends = labels[stem], ("lora_down.weight", "lora_up.weight")
        converted |= {f"{name}.{end}": each for end, each in zip(ends, pair, strict=True)}
        if lora_factors.is_dora(layer):
            sizes = lora_factors.magnitude(layer, pair[1].shape[0])
            if sizes is None or not is_known:
                dora.append(stem)
            else:
                converted[f"{name}.lora_magnitude_vector"] = sizes
    _check_forms(len(layers), broken, dora)
    return converted


def _check_forms(count: int, broken: list[str], dora: list[str]) -> None:
    if broken:
        reason = "have an unknown form or lack a tensor"
        raise ModelsError(f"{len(broken)} of its {count} layers {reason}, such as {broken[0]!r}")
    if dora:
        reason = "are of a DoRA that does not fit the layers of this model"
        raise ModelsError(f"{len(dora)} of its {count} layers {reason}, such as {dora[0]!r}")


def _guess(label: str, stem: str) -> str:
    """Return a path for a layer that the model lacks; it counts as left out."""
    part = next((part for part, prefixes in _KOHYA.items() if label.startswith(prefixes)), "unet")
    inner = stem.removeprefix(_WRAPPER).removeprefix(f"{part}.")
    return f"{part}.{_DENOISER.sub('', inner, count=1)}"


def _peft_scale(file: Path, layers: dict[str, Layer]) -> float | None:
    """Return the scale of peft's configuration beside the file; None without one.

    It is `LoraConfig`'s lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora.
    """
    if not any(stem.startswith(_WRAPPER) for stem in layers):
        return None
    try:
        config = json.loads((file.parent / "adapter_config.json").read_text(encoding="utf-8"))
        rank, alpha = float(config["r"]), float(config["lora_alpha"])
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def left_out(pipe: Any, adapter: str, layers: list[str]) -> list[str]:
    """Return those layers that the pipeline has not got from the LoRA of this name."""
    applied = {
        f"{part}.{path.removeprefix('text_model.')}"
        for part, component in pipe.components.items()
        if isinstance(component, torch.nn.Module)
        for path, module in component.named_modules()
        if adapter in getattr(module, "lora_A", ()) or adapter in getattr(module, "lokr_w1", ())
    }
    return [layer for layer in layers if layer not in applied]


def layer_of(key: str) -> str:
    """Return the layer of a key in diffusers' or peft's names."""
    match = _TUNER.search(key)
    if match is None:
        return key
    layer, attention = key[: match.start()], match[1]
    part, _, path = layer.partition(".")
    if attention is not None and part.startswith("text_encoder"):
        path += f".{_ATTENTION[attention]}"
    elif attention is not None:
        path += f".{attention}" + (".0" if attention == "to_out" else "")
    return f"{part}.{path.removeprefix('text_model.')}"
