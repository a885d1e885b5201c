"""Finds what a model's name stands for: the built-in one, one of models.toml, or SDE_MODEL's own.

Reads names and folders, no weights. What may hold code is refused here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import Library, ModelAsset, ModelsError
from gpu_worker.pipeline.loading import checkpoints, task_pipelines
from gpu_worker.settings import WorkerSettings

DEMO_MODEL = Path(__file__).parents[2] / "demo_model"
DEMO = ModelAsset.model_validate({"source": "demo", "defaults": {"guidance_scale": 4.0}})

INDEX = "model_index.json"
_LIBRARIES = (None, "diffusers", "transformers")
"""Where a pipeline's parts may come from, beside the folders of diffusers' own pipelines."""

_UNSAFE = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


class ModelNotFound(ValueError):
    """A model's name stands for nothing that can be loaded; the text says what was looked for."""


@dataclass(frozen=True)
class Source:
    """A model's entry and where it lies: a directory or a file, or None for the hub."""

    name: str
    model: ModelAsset
    path: Path | None

    @property
    def config(self) -> Path | None:
        """The directory in diffusers' layout: of a single file the one that has its name; without
        one, the hub is asked by what the weights look like."""
        if self.path is None or self.path.is_dir():
            return self.path
        beside = self.path.with_suffix("")
        return beside if (beside / INDEX).is_file() else None


def find(name: str, library: Library, settings: WorkerSettings) -> Source:
    """What a name stands for.

    Raises:
        ModelNotFound: SDE_MODEL names nothing.
        ModelsError: no model has this name, or its files are not as they must be.
    """
    if name in library.models:
        model = library.models[name]
        return _check(Source(name, model, model_library.locate(settings.models_dir, model.source)))
    if name == "demo":
        return Source(name, DEMO, DEMO_MODEL)
    if name != settings.model:
        known = ", ".join(names(library, settings))
        raise ModelsError(f"no model is called {name!r}; there are: {known}")
    return _check(_from_setting(name))


def names(library: Library, settings: WorkerSettings) -> list[str]:
    """All that a request may name, the default first."""
    return list(dict.fromkeys([settings.model, *library.models, "demo"]))


def index(folder: Path) -> dict[str, Any]:
    """The pipeline's parts as its index names them.

    Raises:
        ModelsError: it has none, or names code that is not of diffusers or transformers.
    """
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelsError(f"{folder.name}: the directory has no {INDEX}") from None
    except ValueError as error:
        raise ModelsError(f"{folder.name}: {INDEX} is no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("_class_name"), str):
        raise ModelsError(f"{folder.name}: {INDEX} names no pipeline that diffusers has")
    for part, named in found.items():
        is_part = isinstance(named, list) and len(named) == 2 and not isinstance(named[0], int)
        if is_part and not _is_diffusers(named[0]):
            raise ModelsError(
                f"{folder.name}: {INDEX} wants {part} from {named[0]!r}, which neither diffusers "
                "nor transformers has; code of a model's own is not run"
            )
    return found


def _is_diffusers(library: Any) -> bool:
    """diffusers finds a part in a library, or in the folder of a pipeline (`kolors`)."""
    if library in _LIBRARIES:
        return True
    folder = Path(diffusers.pipelines.__file__).parent / str(library)
    is_name = isinstance(library, str) and library.isidentifier()
    return is_name and folder.is_dir() and hasattr(diffusers.pipelines, library)


def pipeline_class(source: Source) -> Any:
    """The pipeline's class in diffusers, found without its weights; None where only the hub knows.

    Raises:
        ModelsError: diffusers has no such class.
    """
    if source.config is not None:
        name = index(source.config)["_class_name"]
        found = getattr(diffusers, name, None)
        if lacking := getattr(found, "_backends", None):
            wanted = ", ".join(lacking)
            raise ModelsError(
                f"{source.name}: {name} needs a library that is not installed, of {wanted}"
            )
        if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
            raise ModelsError(f"{source.name}: diffusers has no pipeline called {name!r}")
        if why := task_pipelines.unsupported_reason(found):
            raise ModelsError(f"{source.name}: is not supported: {name} {why}")
        return found
    if source.path is not None and source.path.suffix == ".safetensors":
        return checkpoints.pipeline_class(source.path)
    return None


def _from_setting(name: str) -> Source:
    """SDE_MODEL is the operator's word: a directory, a .safetensors file, or a hub id."""
    path, model = Path(name), ModelAsset(source=name)
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise ModelNotFound(f"SDE_MODEL={name}: the directory has no {INDEX}")
        return Source(name, model, path)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelNotFound(f"SDE_MODEL={name}: there is no such file")
        return Source(name, model, path)
    if path.is_absolute() or path.suffix in _UNSAFE or not model_library.HUB_ID.fullmatch(name):
        raise ModelNotFound(
            f"SDE_MODEL={name}: is neither demo, nor a name of models.toml, nor a directory, nor a "
            ".safetensors file, nor a hub id such as stabilityai/stable-diffusion-2-1"
        )
    return Source(name, model, None)


def _check(source: Source) -> Source:
    """Raises ModelsError when its index names code, or it lacks what only a directory says."""
    if source.path is not None:
        pipeline_class(source)
        if source.path.suffix == ".gguf" and source.config is None:
            beside = source.path.with_suffix("").name
            raise ModelsError(
                f"{source.name}: a .gguf file holds the transformer alone; the rest is wanted in "
                f"diffusers' layout in {beside}/ beside it"
            )
    return source
