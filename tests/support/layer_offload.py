"""Layer-by-layer offload on a machine without a GPU: the weights rest in files, and on `meta`.

diffusers' own layer hooks leave the weights on the CPU, where nothing shows which device is meant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import torch

CPU = torch.device("cpu")


def offload(pipe: Any, folder: Path) -> Any:
    """The pipeline, its weights in files of the folder until a layer needs them."""
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            accelerate.disk_offload(part, str(folder / name), CPU, offload_buffers=True)
    return pipe
