"""Runs a VAE once more in float32 where its numbers overflowed in a narrower dtype."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from gpu_worker.pipeline.execution import offload

NAME = "float32"
"""As a record has it."""

_NARROW = (torch.float16, torch.bfloat16)
_SAVINGS = ("use_slicing", "use_tiling", "tile_")
"""How the names of a VAE's own settings begin that bound its memory."""


def tensors(value: object) -> Iterator[torch.Tensor]:
    """Yield each floating-point tensor in what a network returns; a distribution's parameters."""
    if isinstance(value, torch.Tensor):
        if value.dtype in (*_NARROW, torch.float32, torch.float64):
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)
    else:
        yield from tensors(getattr(value, "parameters", getattr(value, "sample", ())))


def is_worth_a_retry(value: torch.Tensor, output: object) -> bool:
    """Return whether a narrow dtype overflowed on finite values. It waits for the device."""
    if value.dtype not in _NARROW:
        return False
    results = [each.isfinite().all() for each in tensors(output)]
    is_finite, *rest = torch.stack([value.isfinite().all(), *results]).tolist()
    return is_finite and not all(rest)


def run(vae: torch.nn.Module, method: str, value: torch.Tensor, *inputs: Any, **named: Any) -> Any:
    """Return what the VAE's own method gives in float32. The VAE is as before afterwards."""
    if offload.has_layer_hooks(vae):
        return getattr(_copy(vae, value.device), method)(value.float(), *inputs, **named)
    with _in_float32(vae):
        return getattr(type(vae), method)(vae, value.float(), *inputs, **named)


def memory_settings(vae: Any) -> dict[str, Any]:
    """Return a VAE's own settings that bound its memory."""
    return {name: value for name, value in vars(vae).items() if name.startswith(_SAVINGS)}


def cast(output: Any, dtype: torch.dtype) -> Any:
    """Return a result of `encode` in another dtype."""
    if isinstance(output, torch.Tensor):
        return output.to(dtype)
    if isinstance(output, dict):
        return type(output)(**{name: cast(each, dtype) for name, each in output.items()})
    if isinstance(output, tuple):
        return tuple(cast(each, dtype) for each in output)
    if isinstance(getattr(output, "parameters", None), torch.Tensor):
        return type(output)(output.parameters.to(dtype), output.deterministic)
    return output


@contextlib.contextmanager
def _in_float32(vae: torch.nn.Module) -> Iterator[None]:
    """Use float32 weights inside this context, and restore the VAE's own afterwards."""
    own = [(weight, weight.data) for weight in (*vae.parameters(), *vae.buffers())]
    try:
        for weight, data in own:
            weight.data = data.float() if data.is_floating_point() else data
        yield
    finally:
        for weight, data in own:
            weight.data = data


def _copy(vae: Any, device: torch.device) -> Any:
    """Return a float32 copy of a VAE whose layers come to the device one by one."""
    with torch.device("meta"):
        whole = type(vae).from_config(vae.config)
    weights = {name: each.float() for name, each in vae.state_dict().items()}
    whole.load_state_dict(weights, assign=True)
    vars(whole).update(memory_settings(vae))
    return whole.to(device, torch.float32).eval()
