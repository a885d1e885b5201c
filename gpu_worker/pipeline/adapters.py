"""LoRA, textual inversion, IP-Adapter, ControlNet and another VAE for one job, and off again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpu_worker.pipeline.inputs import Inputs
from gpu_worker.pipeline.loaded import Loaded, NotSupported
from gpu_worker.request import GenerationRequest


@contextlib.contextmanager
def attached(
    loaded: Loaded, pipe: Any, request: GenerationRequest, inputs: Inputs
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The pipeline to call instead (a ControlNet makes it another class), and further arguments.

    Raises:
        NotSupported: this pipeline does not take one of them.
        ModelsError: models.toml does not know one.
    """
    for name in ("loras", "controlnets", "ip_adapter", "embeddings", "vae"):
        if getattr(request, name):
            raise NotSupported(name, getattr(request, name), pipe, "does not take it")
    yield pipe, {}
