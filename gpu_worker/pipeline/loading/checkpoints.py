"""Recognises the content of a single weights file from its tensors' names and shapes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders import single_file_utils

from gpu_worker import model_configs
from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline import families

_VAE = ("first_stage_model.", "vae.")
_UNET = "model.diffusion_model."
_FIRST_LAYER = f"{_UNET}input_blocks.0.0.weight"
_TEXT_LAYER = "attn2.to_k.weight"
_VELOCITY_BIAS = f"{_UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
_VELOCITY_DEVIATION = 0.09
"""The deviation of that bias is larger in the models of Stable Diffusion 2 that predict velocity.

The rule is ComfyUI's (`comfy/supported_models.py`, SD20). The files themselves do not say it.
"""

_PREDICTIONS = {"v": "v_prediction", "epsilon": "epsilon"}
"""diffusers' words for those of ModelSpec."""

_EDM = "edm_vpred.sigma_max"
"""A key of models with EDM's preconditioning, such as CosXL."""

_SCALES = (
    *(".scale_weight", ".weight_scale", ".scale_input", ".input_scale", "scaled_fp8"),
    *(".comfy_quant", ".absmax", ".quant_map", ".wscales", ".qweight"),
)
"""Ends of the keys of scales and tables, without which quantized weights have no meaning."""


def check_weights(keys: Iterable[str], label: str) -> None:
    """Check that the weights of a file mean what they say; diffusers leaves scales beside them out.

    Raises:
        ModelsError: they are quantized with scales.
    """
    scales = [key for key in keys if key.endswith(_SCALES)]
    if scales:
        raise ModelsError(
            f"{label}: its weights are quantized with scales, such as {scales[0]!r}, which is not "
            "supported; use a file in float16, bfloat16 or plain fp8, or a .gguf file"
        )


def pipeline_class(path: Path) -> Any:
    """Return the pipeline class of a file whose configuration only the hub has.

    Raises:
        ModelsError: the file is not safetensors, holds only a part of a model, is unknown to
            diffusers, or fits no published configuration.
    """
    tensors = _contents(path)
    kind = _kind(tensors)
    beside = path.with_suffix("").name
    if _EDM in tensors:
        raise ModelsError(
            f"{path.name}: is a model with EDM's noise ({_EDM}); put its configuration with an "
            f"EDM scheduler in diffusers' layout in {beside}/ beside it"
        )
    if kind not in families.SINGLE_FILES or not has_vae(tensors):
        reason = "holds no known model" if kind == "unknown" else f"is {kind} only"
        raise ModelsError(
            f"{path.name}: {reason}; put the other parts in diffusers' layout in "
            f"{beside}/ beside it"
        )
    if shipped := families.SHIPPED_CONFIGURATIONS.get(kind):
        raise ModelsError(
            f"{path.name}: is of another size than {shipped}; put its configuration in "
            f"diffusers' layout in {beside}/ beside it"
        )
    return getattr(diffusers, families.SINGLE_FILES[kind])


def shipped_configuration(path: Path) -> Path | None:
    """Return the directory of gpu_worker/model_configs/ that describes a file with a whole model.

    It is None for other families, and for a network of another size.

    Raises:
        ModelsError: the file is not safetensors.
    """
    tensors = _contents(path)
    kind = _kind(tensors)
    if kind == "v2" and not _predicts_velocity(path):
        kind = "v2_base"
    name = families.SHIPPED_CONFIGURATIONS.get(kind)
    if name is None or _EDM in tensors or not has_vae(tensors):
        return None
    folder = model_configs.FOLDER / name
    unet = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    text = next((key for key in tensors if key.endswith(_TEXT_LAYER)), None)
    fits = (
        text is not None
        and tensors[text].shape[-1] == unet["cross_attention_dim"]
        and tensors[_FIRST_LAYER].shape[:2] == (unet["block_out_channels"][0], unet["in_channels"])
    )
    return folder if fits else None


def scheduling(path: Path) -> dict[str, Any]:
    """Return the values of the scheduler's configuration that a file itself names.

    `v_pred` and `ztsnr` are keys of NoobAI XL and its kin, and `modelspec.prediction_type` is
    metadata of Stability AI's ModelSpec.

    Raises:
        ModelsError: the file is not safetensors.
    """
    with _opened(path) as file:
        keys = set(file.keys())
        stated = (file.metadata() or {}).get("modelspec.prediction_type")
    prediction = "v_prediction" if "v_pred" in keys else _PREDICTIONS.get(str(stated))
    values: dict[str, Any] = {"prediction_type": prediction} if prediction else {}
    return values | ({"rescale_betas_zero_snr": True} if "ztsnr" in keys else {})


def _predicts_velocity(path: Path) -> bool:
    """Return whether a file of Stable Diffusion 2 predicts the velocity, not the noise."""
    stated = scheduling(path).get("prediction_type")
    if stated is not None:
        return bool(stated == "v_prediction")
    with _opened(path) as file:
        has_bias = _VELOCITY_BIAS in file.keys()  # noqa: SIM118
        return has_bias and bool(
            file.get_tensor(_VELOCITY_BIAS).float().std(unbiased=False) > _VELOCITY_DEVIATION
        )


def configuration(path: Path) -> str:
    """Return the hub id of diffusers' configuration for a single file with a whole model."""
    config = single_file_utils.fetch_diffusers_config(_contents(path))
    return str(config["pretrained_model_name_or_path"])


def is_transformer_alone(path: Path) -> bool:
    """Return whether the file lacks VAE and text encoders, as a GGUF file always does."""
    return path.suffix == ".gguf" or not has_vae(_contents(path))


def has_vae(keys: Any) -> bool:
    """Return whether a checkpoint's keys include a VAE's, as a whole model's do."""
    return any(key.startswith(_VAE) for key in keys)


def _kind(tensors: dict[str, torch.Tensor]) -> str:
    """Return diffusers' name for the kind of a checkpoint, or unknown."""
    try:
        kind = str(single_file_utils.infer_diffusers_model_type(tensors))
    except (KeyError, IndexError, ValueError, UnboundLocalError):  # keys of two families
        return "unknown"
    # diffusers takes every unknown file for v1.
    is_v1 = any(key.startswith(_UNET) for key in tensors)
    return "unknown" if kind == "v1" and not is_v1 else kind


def _contents(path: Path) -> dict[str, torch.Tensor]:
    """Return the file's tensors by name, with their shapes but without data."""
    with _opened(path) as file:
        return {
            key: torch.empty(file.get_slice(key).get_shape(), device="meta")
            for key in file.keys()  # noqa: SIM118
        }


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ModelsError(f"{path.name}: is not a safetensors file: {error}") from None
