"""Names the GPUs that its process may see as its device, as they were when it was imported."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from tests.pipelines.instant import Instant

NAMES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
SEEN = " ".join(f"{name}={os.environ.get(name)}" for name in NAMES)


class NamesGpu(Instant):
    """Its device is what the environment says."""

    metadata: ClassVar[dict[str, Any]] = {**Instant.metadata, "device": SEEN}


def load(settings: object) -> NamesGpu:
    """The factory."""
    return NamesGpu()
