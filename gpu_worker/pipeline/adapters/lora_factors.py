"""Converts a layer of LyCORIS (LoHa, LoKr, a LoCon with a core) to the two factors of a LoRA.

The change of the weight stays exactly the same. The formulas are those of
https://github.com/KohakuBlueleaf/LyCORIS, `lycoris/functional`.
"""

from __future__ import annotations

import torch

Layer = dict[str, torch.Tensor]
"""The tensors of a layer by the ends of their keys."""

Factors = tuple[torch.Tensor, torch.Tensor]
"""Down and up. Their product, with the scale, is the change of the weight."""

_ADDITIVE = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_A.default.weight": "down",
    "lora_B.default.weight": "up",
    "lora_mid.weight": "mid",
}
_HADAMARD = {f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
_KRONECKER = {f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
_DORA = {"dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight"}

_BIAS = "lora_B.bias"

ENDS = (*_ADDITIVE, *_HADAMARD, *_KRONECKER, *_DORA, _BIAS, "alpha")
"""Every end of a key that is read."""


def factors(layer: Layer, scale: float | None, kernel: tuple[int, ...] | None) -> Factors | None:
    """Return the two factors of a layer; None if its tensors are not a complete set of one form.

    Args:
        scale: the scale of a file whose layers have no `alpha`; None means 1.
        kernel: (in, height, width) if the model's layer is a convolution.
    """
    if {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= set(layer):
        down, up = _hadamard(layer)
        rank = layer["hada_w1_b"].shape[0]
    elif _KRONECKER & set(layer) and not any(end in _ADDITIVE for end in layer):
        pair = _kronecker(layer)
        if pair is None:
            return None
        down, up = pair
        inner = layer.get("lokr_w2_b", layer.get("lokr_w1_b"))
        rank = 0 if inner is None else inner.shape[0]
    else:
        parts = {
            _ADDITIVE[end]: tensor.float() for end, tensor in layer.items() if end in _ADDITIVE
        }
        if not {"down", "up"} <= set(parts) or _BIAS in layer:
            return None
        down, up = parts["down"], parts["up"]
        rank = down.shape[0]
        if "mid" in parts:
            down = torch.einsum("pqhw,qi->pihw", parts["mid"], down.flatten(1))
    if "alpha" in layer:
        up = up * (float(layer["alpha"]) / rank if rank else 1.0)
    elif scale is not None:
        up = up * scale
    return _shaped(down, up, kernel)


def magnitude(layer: Layer, rows: int) -> torch.Tensor | None:
    """Return the magnitudes of a DoRA for `rows` outputs; None if it has others."""
    for end in _DORA & set(layer):
        tensor = layer[end].float()
        return tensor.flatten() if tensor.shape[:1] == (rows,) and tensor.numel() == rows else None
    return None


def is_whole_lora(layer: Layer) -> bool:
    """Return whether the layer has both factors of a LoRA and no tensors of LyCORIS."""
    parts = {_ADDITIVE[end] for end in layer if end in _ADDITIVE}
    return parts == {"down", "up"} and not (_HADAMARD | _KRONECKER) & set(layer)


def is_dora(layer: Layer) -> bool:
    """Return whether the layer scales the rows or columns of the weight."""
    return bool(_DORA & set(layer))


def _hadamard(layer: Layer) -> Factors:
    """Return the factors of (A1 B1) * (A2 B2), whose rank is the product of both (Khatri-Rao)."""
    a1, b1, a2, b2 = (layer[f"hada_{part}"].float() for part in ("w1_a", "w1_b", "w2_a", "w2_b"))
    if "hada_t1" in layer:
        first = torch.einsum("ij...,ip,jr->pr...", layer["hada_t1"].float(), a1, b1)
        return _full(first * torch.einsum("ij...,ip,jr->pr...", layer["hada_t2"].float(), a2, b2))
    if b1.shape[0] * b2.shape[0] >= min(a1.shape[0], b1.shape[1]):
        return _full((a1 @ b1) * (a2 @ b2))
    up = (a1[:, :, None] * a2[:, None, :]).flatten(1)
    return (b1[:, None, :] * b2[None, :, :]).flatten(0, 1), up


def _kronecker(layer: Layer) -> Factors | None:
    sides = []
    for side in ("w1", "w2"):
        whole, a, b = (layer.get(f"lokr_{side}{end}") for end in ("", "_a", "_b"))
        core = layer.get(f"lokr_t{side[1]}")
        if whole is not None:
            sides.append(whole.float())
        elif a is None or b is None:
            return None
        elif core is not None:
            sides.append(torch.einsum("ij...,ip,jr->pr...", core.float(), a.float(), b.float()))
        else:
            sides.append(a.float() @ b.float())
    first, second = sides
    first = first.reshape(*first.shape, *(1,) * (second.ndim - first.ndim))
    return _full(torch.kron(first, second))


def _full(change: torch.Tensor) -> Factors:
    """Return a change of the whole weight as factors, of which one is the identity."""
    rows, columns = change.shape[0], change[0].numel()
    if rows <= columns:
        return change, torch.eye(rows)
    return torch.eye(columns).reshape(columns, *change.shape[1:]), change.flatten(1)


def _shaped(down: torch.Tensor, up: torch.Tensor, kernel: tuple[int, ...] | None) -> Factors:
    """Return the factors in peft's shapes; those of a convolution have four dimensions."""
    if kernel is None and down[0].numel() == down.shape[1]:
        return down.flatten(1), up.flatten(1)  # also of a 1 x 1 convolution that is linear here
    if kernel is not None and down[0].numel() == torch.Size(kernel).numel():
        down = down.reshape(-1, *kernel)
    return down, up.flatten(1)[..., None, None]
