"""Names what a NaN or an infinity came from: the part, and the field of the request behind it."""

from __future__ import annotations

from typing import Any

import torch

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.integrity.finite_values import SCHEDULER, TEXT_ENCODER, Note

_VOCABULARY = ("token_embedding", "embed_tokens", "shared", "word_embeddings")
_IP_ADAPTER = ("encoder_hid_proj", "_ip.")
"""What the names of weights contain that are not the model's own."""


def refusal(
    note: Note, pipe: Any, request: GenerationRequest, model: str, base: Any = None
) -> Unsupported:
    """Return the sentence of a job that has no image for this reason.

    Args:
        note: the first that is not finite.
        pipe: the pipeline of the pass, with everything that the request names.
        model: the name of the loaded model.
        base: where the pass is a refiner's, the pipeline that it takes over from.
    """
    field, value = _field(note.part, pipe, request) or ("model", model)
    if request.refiner is not None and base is not None and note.part != SCHEDULER:
        part = getattr(pipe, note.part, None)
        if part is not None and part is not getattr(base, note.part, None):
            field, value = "refiner.name", request.refiner.name
    dtype = str(note.dtype).removeprefix("torch.")
    reason = f"the {note.part} produced NaN or infinite values in {dtype}, so there is no image"
    return Unsupported(field, value, reason)


def _field(part: str, pipe: Any, request: GenerationRequest) -> tuple[str, Any] | None:
    """Return what the request put into this part; None where it is the loaded model's own."""
    if part == SCHEDULER:
        options, name = request.scheduler_options, type(pipe.scheduler).__name__
        return ("scheduler_options", options) if options else ("scheduler", name)
    if "controlnet" in part and request.controlnets:
        return "controlnets", [each.name for each in request.controlnets]
    if "image_encoder" in part and request.ip_adapter is not None:
        return "ip_adapter.name", request.ip_adapter.name
    if hasattr(getattr(pipe, part, None), "decode"):
        return None if request.vae is None else ("vae", request.vae)
    weight = _broken_weight(pipe, part)
    return _attached(part, request) if weight is None else _field_of_weight(weight, request)


def _field_of_weight(weight: str, request: GenerationRequest) -> tuple[str, Any] | None:
    for place, lora in enumerate(request.loras):
        if f".lora_{place}." in f"{weight}.":
            return f"loras.{place}.name", lora.name
    if request.embeddings and any(word in weight for word in _VOCABULARY):
        return "embeddings", request.embeddings
    if request.ip_adapter is not None and any(word in weight for word in _IP_ADAPTER):
        return "ip_adapter.name", request.ip_adapter.name
    return None


def _attached(part: str, request: GenerationRequest) -> tuple[str, Any] | None:
    """Return what the request added to a part whose weights are finite."""
    if request.loras:
        return "loras", [lora.name for lora in request.loras]
    if request.embeddings and TEXT_ENCODER in part:
        return "embeddings", request.embeddings
    if request.ip_adapter is not None and TEXT_ENCODER not in part:
        return "ip_adapter.name", request.ip_adapter.name
    return None


def _broken_weight(pipe: Any, part: str) -> str | None:
    """Return the name of the first weight that is not finite, of those in memory.

    Args:
        part: a part's name. Prompts that were encoded before the call have several encoders.
    """
    names = [name for name in pipe.components if name.startswith(part)]
    networks = [each for name in names if (each := getattr(pipe, name, None)) is not None]
    for network in networks:
        if not isinstance(network, torch.nn.Module):
            continue
        for name, weight in network.named_parameters():
            is_plain = weight.dtype.is_floating_point and weight.dtype.itemsize > 1
            if is_plain and not weight.is_meta and not bool(weight.isfinite().all()):
                return name
    return None
