"""What a pipeline looks like between two jobs: where its parts rest, their hooks and dtypes."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.cuda.memory import DEVICES

_TIMESTEPS_BYTES = 1024
"""A scheduler keeps the few timesteps of its last call on the device."""

State = dict[str, Any]


def read(pipe: Any, gpu: int) -> State:
    """Return the state of each part, and the bytes alive on the device."""
    parts = {
        name: _part(module)
        for name, module in pipe.components.items()
        if isinstance(module, torch.nn.Module)
    }
    hooks = [type(hook).__name__ for hook in getattr(pipe, "_all_hooks", None) or []]
    scheduler = type(getattr(pipe, "scheduler", None)).__name__
    rest = {"hooks": hooks, "scheduler": scheduler, "bytes": DEVICES[gpu].allocated_bytes}
    return {**parts, **rest}


def _part(module: torch.nn.Module) -> State:
    tensors = [*module.parameters(), *module.buffers()]
    hooks = [type(m._hf_hook).__name__ for m in module.modules() if hasattr(m, "_hf_hook")]
    registries = [getattr(m, "_diffusers_hook", None) for m in module.modules()]
    return {
        "devices": sorted({str(each.device) for each in tensors}),
        "dtypes": sorted({str(each.dtype) for each in tensors}),
        "tensors": len(tensors),
        "modules": sum(1 for _ in module.modules()),
        "training": module.training,
        "hooks": sorted(hooks),
        "group_hooks": sum(_has_group_hook(each) for each in registries),
        "processors": sorted(
            type(each).__name__ for each in getattr(module, "attn_processors", {}).values()
        ),
    }


def _has_group_hook(registry: Any) -> bool:
    """Return whether a layer waits on the CPU. How layers follow each other is traced anew."""
    return registry is not None and registry.get_hook("group_offloading") is not None


def changes(before: State, after: State) -> list[str]:
    """Return a sentence for each difference that matters."""
    sentences = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if name == "bytes":
            if abs(new - old) > _TIMESTEPS_BYTES:
                sentences.append(f"the device holds {new} bytes instead of {old}")
        elif isinstance(old, dict) and isinstance(new, dict):
            sentences += [
                f"{key} of {name} is {new[key]} instead of {old[key]}"
                for key in old
                if new[key] != old[key]
            ]
        elif old != new:
            sentences.append(f"{name} is {new} instead of {old}")
    return sentences
