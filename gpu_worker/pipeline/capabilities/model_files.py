"""Checks a model's directory against its own index and configurations. It reads no weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import transformers

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.loading import checkpoints, sources
from gpu_worker.pipeline.loading.asset_files import SUFFIX, check_header, stored_variant
from gpu_worker.pipeline.loading.sources import Source

_CONFIGS = {
    "scheduler": "scheduler_config.json",
    "processor": "preprocessor_config.json",
    "network": "config.json",
}


def check(source: Source) -> None:
    """Check that the files of a model exist and that their headers are whole.

    Raises:
        ModelsError: a part of the index is missing, incomplete or damaged.
    """
    if source.path is None:
        return
    is_file = source.path.is_file()
    if is_file and source.path.suffix == SUFFIX:
        check_header(source.path, source.name)
    if source.config is None:
        return
    in_file: set[str] | None = set()
    if is_file:
        in_file = {"transformer"} if checkpoints.is_transformer_alone(source.path) else None
    variant = sources.variant(source)
    for part, kind in _parts(source.config):
        _check_part(source.config / part, source.name, kind)
        if kind == "network" and in_file is not None and part not in in_file:
            _check_weights(source.config / part, source.name, variant)


def _check_part(folder: Path, name: str, kind: str) -> None:
    label = f"{name}: {folder.name}"
    if not folder.is_dir() or not any(folder.iterdir()):
        raise ModelsError(f"{label} is missing, but {model_library.INDEX} names it")
    config = _CONFIGS.get(kind)
    if config is None:
        return
    try:
        content = sources.read_config(folder / config, f"{label}/{config}")
    except FileNotFoundError:
        raise ModelsError(f"{label} has no {config}") from None
    if not content:
        raise ModelsError(f"{label}/{config} has no values")


def _parts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the kind of each part in the index: network, scheduler and so on."""
    for part, entry in sources.index(folder).items():
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
            yield part, _kind(entry[0], entry[1])


def _kind(library: Any, class_name: str) -> str:
    module = transformers if library == "transformers" else diffusers
    try:
        cls = getattr(module, class_name)
    except (AttributeError, ImportError):
        return "other"  # of a pipeline's own folder, or with a library that is missing
    if not isinstance(cls, type):
        return "other"
    if issubclass(cls, diffusers.SchedulerMixin):
        return "scheduler"
    if issubclass(cls, diffusers.ModelMixin | transformers.PreTrainedModel):
        return "network"
    return "processor" if issubclass(cls, transformers.FeatureExtractionMixin) else "other"


def _check_weights(folder: Path, name: str, variant: str | None) -> None:
    """Check that a network has weights, whole and with every shard.

    Raises:
        ModelsError: it has not.
    """
    label = f"{name}: {folder.name}"
    chosen = stored_variant(folder, variant, label)
    files = sources.weights(folder, chosen)
    ending = f"{SUFFIX}.index.json" if chosen is None else f"{SUFFIX}.index.{chosen}.json"
    indices = [path for path in folder.iterdir() if path.name.endswith(ending)]
    shards = {shard for index in indices for shard in _shards(index, label)}
    if not indices and any("-of-" in file.name for file in files):
        raise ModelsError(f"{label} has shards without an index, NAME{ending}")
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if missing:
        raise ModelsError(f"{label} lacks {len(missing)} of its shards, such as {missing[0]}")
    if not files:
        raise ModelsError(f"{label} has no {SUFFIX} weights")
    for file in files:
        check_header(file, name)


def _shards(index: Path, label: str) -> set[str]:
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return {str(shard) for shard in shards}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelsError(f"{label}/{index.name} is not an index of weights") from None
