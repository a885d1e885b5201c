"""Describes all models and the names of all other assets. No weights are read.

docs/http-api.md describes the result, GET /server/models.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, get_args

from gpu_worker.assets.model_library import FILE_KINDS, Kind, Library, ModelNotFound, ModelsError
from gpu_worker.contract.capabilities import (
    EmbeddingCapabilities,
    ModelCapabilities,
    SchedulerCapabilities,
)
from gpu_worker.contract.field_types import LANCZOS, LATENT
from gpu_worker.contract.validation_errors import error_text
from gpu_worker.pipeline.capabilities import model
from gpu_worker.pipeline.loading import checkpoints, embedding_files, sources
from gpu_worker.pipeline.loading.asset_files import (
    SUFFIX,
    AssetFiles,
    check_header,
    configuration,
    stored_variant,
)
from gpu_worker.pipeline.schedulers import catalog
from gpu_worker.settings import WorkerSettings

BUILT_IN = {"upscalers": [LATENT, LANCZOS]}
"""Names that always exist."""

_NETWORKS: tuple[Kind, ...] = ("controlnets", "vaes", "refiners")
"""Kinds that are networks of diffusers."""

log = logging.getLogger(__name__)


def describe_library(
    library: Library, settings: WorkerSettings, loaded: str | None, pipe: Any = None
) -> dict[str, Any]:
    """Describe all models and name all other assets, with the reason for each unusable one.

    Args:
        loaded: the name of the model in memory.
        pipe: the pipeline of that model.

    Returns:
        The members of Capabilities except models_error.
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
    except (ModelsError, ModelNotFound, OSError) as error:
        return ModelCapabilities(error=error_text(error))
    except Exception as error:  # a damaged file fails in many ways and must not affect other models
        log.warning("the model %s cannot be described", name, exc_info=error)
        return ModelCapabilities(error=error_text(f"{name}: cannot be described: {error}"))


def _assets(kind: Kind, library: Library, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the usable names, and the unusable ones with their reasons."""
    broken = {}
    named = sorted(getattr(library, kind))
    for name in named:
        try:
            _check(kind, name, AssetFiles(library, folder))
        except Exception as error:  # an invalid asset must not affect the others
            message = error_text(error)
            broken[name] = message if message.startswith(kind) else f"{kind}.{name}: {message}"
    return [name for name in named if name not in broken], broken


def _words(library: Library, folder: Path, names: list[str]) -> dict[str, EmbeddingCapabilities]:
    """Return the words of the embeddings whose files are on this machine."""
    assets = AssetFiles(library, folder)
    words = {}
    for name in names:
        if assets.part("embeddings", name)[1] is not None:
            described = embedding_files.describe(assets, name)
            words[name] = EmbeddingCapabilities(word=described.word, vectors=described.vectors)
    return words


def _check(kind: Kind, name: str, assets: AssetFiles) -> None:
    """Raises ModelsError or OSError. The hub is not queried."""
    part, path = assets.part(kind, name)
    if path is None:
        if kind == "upscalers":
            raise ModelsError(f"{part.source} is not a {SUFFIX} file in the models folder")
        return
    if kind == "embeddings":
        embedding_files.describe(assets, name)
        return
    if kind in FILE_KINDS:
        path = assets.file(kind, name)
    elif kind == "upscalers" and path.suffix != SUFFIX:
        raise ModelsError(f"{part.source} is not a {SUFFIX} file")
    if path.suffix == SUFFIX and path.is_file():
        keys = check_header(path, f"{kind}.{name}")
        if kind in _NETWORKS:
            checkpoints.check_weights(keys, f"{kind}.{name}")
        if kind in ("controlnets", "refiners"):  # a VAE can have that of the loaded model
            inner = "unet" if kind == "refiners" else None
            configuration(path, part.subfolder, inner, f"{kind}.{name}")
    if path.is_dir() and kind in _NETWORKS:
        inner = part.subfolder or ("unet" if (path / "unet").is_dir() else "")
        stored_variant(path / inner, part.variant, f"{kind}.{name}")
    if path.suffix != SUFFIX and not path.is_dir():
        raise ModelsError(f"{path.name} is neither a {SUFFIX} file nor a directory")
