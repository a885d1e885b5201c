"""Chooses a scheduler by its diffusers class name for one job, and puts the old one back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpu_worker.pipeline.loaded import Loaded, NotSupported
from gpu_worker.request import GenerationRequest


@contextlib.contextmanager
def chosen(loaded: Loaded, pipe: Any, request: GenerationRequest) -> Iterator[None]:
    """The pipeline has the request's scheduler within.

    Raises:
        NotSupported: this pipeline cannot work with it, or it does not know an option.
    """
    if request.scheduler is not None or request.scheduler_options:
        raise NotSupported("scheduler", request.scheduler, pipe, "keeps its own")
    yield
