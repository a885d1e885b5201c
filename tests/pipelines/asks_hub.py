"""Asks the hub for a file while it loads, as a library might, and must get no answer."""

from __future__ import annotations

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from gpu_worker.settings import WorkerSettings
from tests.pipelines.instant import Instant
from tests.pipelines.instant import load as load_instant


def load(settings: WorkerSettings) -> Instant:
    try:
        hf_hub_download("owner/name", "model_index.json", cache_dir=settings.model_cache)
    except LocalEntryNotFoundError:
        return load_instant(settings)
    raise AssertionError("the hub has answered")
