"""Finds the model of a name: the built-in model, one of models.toml, or SDE_MODEL.

It reads names and folders, no weights. It rejects formats that may hold code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import INDEX, Library, ModelAsset, ModelsError
from gpu_worker.assets.repository_files import variant_of
from gpu_worker.pipeline.loading import checkpoints, task_pipelines, vocabulary
from gpu_worker.pipeline.loading.asset_files import check_header
from gpu_worker.settings import WorkerSettings

DEMO_MODEL = Path(__file__).parents[2] / "demo_model"
DEMO = ModelAsset.model_validate({"source": "demo", "defaults": {"guidance_scale": 4.0}})

_LIBRARIES = (None, "diffusers", "transformers")
"""Libraries of a pipeline's components, besides the folders of diffusers' own pipelines."""


@dataclass(frozen=True)
class Source:
    """A model's entry and its path: a directory, a file, or None for the hub.

    `has_entry` says whether the entry is one of models.toml.
    """

    name: str
    model: ModelAsset
    path: Path | None
    has_entry: bool = True

    @cached_property
    def config(self) -> Path | None:
        """Return the directory in diffusers' layout; for a single file the one of the same name.

        Without it, it is that of gpu_worker/model_configs/. It is None where only the hub has the
        configuration. Raises ModelsError if the file is not safetensors.
        """
        if self.path is None or self.path.is_dir():
            return self.path
        beside = self.path.with_suffix("")
        if (beside / INDEX).is_file():
            return beside
        is_gguf = self.path.suffix == ".gguf"
        return None if is_gguf else checkpoints.shipped_configuration(self.path)

    @cached_property
    def scheduling(self) -> dict[str, Any]:
        """Return the values of the scheduler's configuration that a single file itself names."""
        is_single = self.path is not None and self.path.suffix == ".safetensors"
        return checkpoints.scheduling(self.path) if self.path and is_single else {}


def vocabulary_of(source: Source) -> vocabulary.Vocabulary | None:
    """Return the words of the built-in model; None for every other model."""
    return vocabulary.of(source.path) if source.model is DEMO else None


def find(name: str, library: Library, settings: WorkerSettings) -> Source:
    """Return the source of a model.

    Raises:
        ModelNotFound: SDE_MODEL names nothing that can be loaded.
        ModelsError: no model has this name, or its files cannot be used.
    """
    if name in library.models:
        model = library.models[name]
        path = model_library.locate(settings.models_dir, model.source)
        return _check(Source(name, model, path), settings.cache_dir)
    if name == "demo":
        return Source(name, DEMO, DEMO_MODEL)
    if name != settings.model:
        choices = ", ".join(names(library, settings))
        raise ModelsError(f"no model has the name {name!r}; the names are: {choices}")
    return _check(_from_setting(name), settings.cache_dir)


def names(library: Library, settings: WorkerSettings) -> list[str]:
    """Return the names of all models that a request may name, the default first."""
    return list(dict.fromkeys([settings.model, *library.models, "demo"]))


def index(folder: Path) -> dict[str, Any]:
    """Return the content of a pipeline's model_index.json.

    Raises:
        ModelsError: it is missing or invalid, or names code outside diffusers and transformers.
    """
    try:
        content = read_config(folder / INDEX, f"{folder.name}: {INDEX}")
    except FileNotFoundError:
        raise ModelsError(f"{folder.name}: the directory has no {INDEX}") from None
    if not isinstance(content.get("_class_name"), str):
        raise ModelsError(f"{folder.name}: {INDEX} names no pipeline of diffusers")
    for component, entry in content.items():
        is_component = isinstance(entry, list) and len(entry) == 2 and not isinstance(entry[0], int)
        if is_component and not _is_diffusers(entry[0]):
            raise ModelsError(
                f"{folder.name}: {INDEX} takes {component} from {entry[0]!r}, which is not part of "
                "diffusers or transformers; a model's own code is never run"
            )
    return content


def read_config(path: Path, label: str) -> dict[str, Any]:
    """Return the JSON object of a configuration file.

    Raises:
        FileNotFoundError: there is no such file.
        ModelsError: its content is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelsError(f"{label} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ModelsError(f"{label} is not a JSON object")
    return content


def weights(folder: Path, variant: str | None) -> list[Path]:
    """Return a network's .safetensors files of one variant; None stands for those without.

    diffusers writes NAME.VARIANT.safetensors, and NAME.VARIANT-00001-of-00002.safetensors.
    """
    return sorted(path for path in folder.glob("*.safetensors") if variant_of(path.name) == variant)


def variant(source: Source) -> str | None:
    """Return the variant to load, which models.toml names.

    A directory in SDE_MODEL has no entry there, so its only variant is loaded.
    """
    if source.has_entry or source.path is None or not source.path.is_dir():
        return source.model.variant
    networks = [path for path in source.path.iterdir() if any(path.glob("*.safetensors"))]
    lacking = [path for path in networks if not weights(path, None)]
    variants = {variant_of(file.name) for path in lacking for file in path.glob("*.safetensors")}
    return variants.pop() if len(variants) == 1 else None


def _is_diffusers(library: Any) -> bool:
    """Return whether diffusers finds a component here: a library, or a pipeline's folder."""
    if library in _LIBRARIES:
        return True
    folder = Path(diffusers.pipelines.__file__).parent / str(library)
    is_name = isinstance(library, str) and library.isidentifier()
    return is_name and folder.is_dir() and hasattr(diffusers.pipelines, library)


def pipeline_class(source: Source) -> Any:
    """Return the pipeline's class, without reading weights; None where only the hub has it.

    Raises:
        ModelsError: diffusers has no such class.
    """
    if source.config is not None:
        name = index(source.config)["_class_name"]
        cls = getattr(diffusers, name, None)
        if backends := getattr(cls, "_backends", None):
            libraries = ", ".join(backends)
            raise ModelsError(
                f"{source.name}: {name} needs a library that is not installed, one of: {libraries}"
            )
        if not (isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline)):
            raise ModelsError(f"{source.name}: diffusers has no pipeline called {name!r}")
        if reason := task_pipelines.unsupported_reason(cls):
            raise ModelsError(f"{source.name}: is not supported: {name} {reason}")
        return cls
    if source.path is not None and source.path.suffix == ".safetensors":
        return checkpoints.pipeline_class(source.path)
    return None


def _from_setting(name: str) -> Source:
    """Return the source of SDE_MODEL: a directory, a .safetensors file or a hub id."""
    path = model_library.locate_setting(name)
    return Source(name, ModelAsset(source=name), path, has_entry=False)


def _check(source: Source, cache_dir: str | None) -> Source:
    """Raise ModelsError when the index names code, or something is not on this machine."""
    if source.path is None:
        cache = Path(cache_dir or huggingface_hub.constants.HF_HUB_CACHE)
        model_library.check_cached(source.model.source, cache)
    if source.path is not None:
        if source.path.suffix == ".safetensors":
            checkpoints.check_weights(check_header(source.path, source.name), source.name)
        pipeline_class(source)
        if source.path.suffix == ".gguf" and source.config is None:
            beside = source.path.with_suffix("").name
            raise ModelsError(
                f"{source.name}: a .gguf file holds the transformer only; put the other parts in "
                f"diffusers' layout in {beside}/ beside it"
            )
    return source
