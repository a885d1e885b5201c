"""Says what can be asked for: all models, and the names of everything else. No weights are read.

What it returns is drawn in docs/http-api.md, GET /server/models.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, get_args

from gpu_worker.assets.model_library import Kind, Library, ModelsError
from gpu_worker.contract.capabilities import (
    EmbeddingCapabilities,
    ModelCapabilities,
    SchedulerCapabilities,
)
from gpu_worker.contract.checks import LATENT
from gpu_worker.contract.validation_errors import error_text
from gpu_worker.pipeline.capabilities import model
from gpu_worker.pipeline.loading import embedding_files, sources
from gpu_worker.pipeline.loading.asset_files import SUFFIX, AssetFiles, check_header
from gpu_worker.pipeline.schedulers import catalog
from gpu_worker.pipeline.upscaling.upscale import LANCZOS
from gpu_worker.settings import WorkerSettings

BUILT_IN = {"upscalers": [LATENT, LANCZOS]}
"""Names that are always there."""

_FILES: tuple[Kind, ...] = ("loras", "embeddings", "ip_adapters")
"""Kinds that are one .safetensors file each."""

log = logging.getLogger(__name__)


def describe_library(
    library: Library, settings: WorkerSettings, loaded: str | None, pipe: Any = None
) -> dict[str, Any]:
    """All models, and the names of everything else; of what cannot be used, why.

    Args:
        loaded: the name of the model in memory.
        pipe: the pipeline that it is.

    Returns:
        The members of Capabilities, but models_error.
    """
    models = {
        name: _model(name, library, settings, pipe if name == loaded else None).model_copy(
            update={"loaded": name == loaded}
        )
        for name in sources.names(library, settings)
    }
    names: dict[str, list[str]] = {}
    errors: dict[str, dict[str, str]] = {}
    for kind in get_args(Kind):
        if kind != "models":
            usable, broken = _assets(kind, library, settings.models_dir)
            names[kind] = [*BUILT_IN.get(kind, []), *usable]
            errors |= {kind: broken} if broken else {}
    listed = {name for each in models.values() for name in each.schedulers or []}
    classes = {name: catalog.by_name(name) for name in sorted(listed)}
    schedulers = {
        name: SchedulerCapabilities(options=catalog.options(cls), eta=catalog.knows_eta(cls))
        for name, cls in classes.items()
        if cls is not None
    }
    return {
        "default": settings.model,
        "models": models,
        **names,
        "embedding_words": _words(library, settings.models_dir, names["embeddings"]),
        "errors": errors,
        "schedulers": schedulers,
    }


def _model(name: str, library: Library, settings: WorkerSettings, pipe: Any) -> ModelCapabilities:
    try:
        source = sources.find(name, library, settings)
        return model.describe_model(source, pipe)
    except (ModelsError, sources.ModelNotFound, OSError) as error:
        return ModelCapabilities(error=error_text(error))
    except Exception as error:  # a damaged file fails in many ways; it costs no other model
        log.warning("the model %s cannot be described", name, exc_info=error)
        return ModelCapabilities(error=error_text(f"{name}: {type(error).__name__}: {error}"))


def _assets(kind: Kind, library: Library, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Names that can be used, and those that cannot with the reason."""
    broken = {}
    named = sorted(getattr(library, kind))
    for name in named:
        try:
            _check(kind, name, AssetFiles(library, folder))
        except Exception as error:  # whatever is wrong with it, it costs nothing else
            said = error_text(error)
            broken[name] = said if said.startswith(kind) else f"{kind}.{name}: {said}"
    return [name for name in named if name not in broken], broken


def _words(library: Library, folder: Path, names: list[str]) -> dict[str, EmbeddingCapabilities]:
    """Of the embeddings that lie on this machine."""
    files = AssetFiles(library, folder)
    words = {}
    for name in names:
        if files.part("embeddings", name)[1] is not None:
            learned = embedding_files.describe(files, name)
            words[name] = EmbeddingCapabilities(word=learned.word, vectors=learned.vectors)
    return words


def _check(kind: Kind, name: str, shelf: AssetFiles) -> None:
    """Raises ModelsError or OSError. What is still on the hub is not asked for."""
    part, path = shelf.part(kind, name)
    if path is None:
        if kind == "upscalers":
            raise ModelsError(f"{part.source} is no {SUFFIX} file in the models folder")
        return
    if kind == "embeddings":
        embedding_files.describe(shelf, name)
    if kind in _FILES:
        path = shelf.file(kind, name)
    elif kind == "upscalers" and path.suffix != SUFFIX:
        raise ModelsError(f"{part.source} is no {SUFFIX} file")
    if path.suffix == SUFFIX and path.is_file():
        check_header(path, f"{kind}.{name}")
    if path.suffix != SUFFIX and not path.is_dir():
        raise ModelsError(f"{path.name} is neither a {SUFFIX} file nor a directory")
