"""Finds the model that a request means, and says what that model takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpu_worker.contract.capabilities import WITH_CONTROLNETS, Capabilities, ModelCapabilities
from gpu_worker.contract.request import metadata_of

_HASH = re.compile(r"\s*\[[0-9a-f]+\]$", re.IGNORECASE)
_SUFFIXES = (".safetensors", ".ckpt", ".gguf", ".pt")


@dataclass(frozen=True)
class Checkpoint:
    """A model as A1111 lists it. `model` is its name in a request; None: the worker's own."""

    title: str
    filename: str
    model: str | None

    def json(self) -> dict[str, Any]:
        """Return an entry of GET /sdapi/v1/sd-models. The hash is not known before a job."""
        return {
            "title": self.title,
            "model_name": self.title,
            "hash": None,
            "sha256": None,
            "filename": self.filename,
            "config": None,
        }


def checkpoints(description: Capabilities, loaded: Iterable[str | None]) -> list[Checkpoint]:
    """Return the models that can be loaded, the default one first.

    Args:
        loaded: the names that workers report, for those that have not described themselves.
    """
    usable = [name for name, each in description.models.items() if each.error is None]
    names = sorted(usable, key=lambda name: name != description.default)
    if names:
        return [
            Checkpoint(name, _filename(description.models[name].source, name), name)
            for name in names
        ]
    return [Checkpoint(name, name, None) for name in dict.fromkeys(filter(None, loaded))]


def _filename(source: str | None, name: str) -> str:
    """Return the last part of a model's source, which is no path of the server."""
    return (source or name).rstrip("/").rpartition("/")[2]


def find_checkpoint(text: str, models: list[Checkpoint]) -> Checkpoint | None:
    """Return the model with this title, name or file name; upper and lower case are the same."""
    sought = _forms(text)
    for each in models:
        if sought & (_forms(each.title) | _forms(each.filename)):
            return each
    return None


def find_name(text: str, names: Iterable[str]) -> str | None:
    """Return the name that a text means, as for a model."""
    return next((name for name in names if _forms(text) & _forms(name)), None)


def _forms(text: str) -> set[str]:
    name = _HASH.sub("", text.strip().replace("\\", "/").rpartition("/")[2]).lower()
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return {name, name.removesuffix(suffix)}
    return {name}


@dataclass(frozen=True)
class Target:
    """The model of a request. `name` is None for the worker's own model."""

    name: str | None = None
    description: Capabilities = field(default_factory=Capabilities)
    models: list[Checkpoint] = field(default_factory=list)

    @property
    def model(self) -> ModelCapabilities | None:
        """Return what is known of the model; None when no worker has described it."""
        return self.description.models.get(self.name or self.description.default or "")

    def with_model(self, text: object, where: str, notes: list[str]) -> Target:
        """Return the target with another model, or the same with a note if none has the name."""
        if not isinstance(text, str) or not text.strip() or text.lower() in ("none", "automatic"):
            return self
        choice = find_checkpoint(text, self.models)
        if choice is None:
            notes.append(f"{where}: no model has the name {text[:80]!r}")
            return self
        return Target(choice.model, self.description, self.models)

    def default(self, name: str) -> Any:
        """Return the model's own value of a field, None if it is unknown."""
        return self.model.default(name) if self.model is not None else None


_THEIRS = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "num_images_per_prompt": "batch_size",
    "strength": "denoising_strength",
    "scheduler": "sampler_name",
    "scheduler_options": "scheduler",
    "image": "init_images",
    "mask_image": "mask",
    "loras": "prompt",
    "embeddings": "prompt",
    "vae": "override_settings.sd_vae",
    "model": "override_settings.sd_model_checkpoint",
    "controlnets": "alwayson_scripts.ControlNet",
    "refiner": "refiner_checkpoint",
    "hires": "enable_hr",
    "hires.scale": "hr_scale",
    "hires.upscaler": "hr_upscaler",
    "hires.strength": "denoising_strength",
    "hires.num_inference_steps": "hr_second_pass_steps",
    "upscale.scale": "upscaling_resize",
    "upscale.upscaler": "upscaler_1",
}
"""A1111's names of our fields."""


def their_name(path: str) -> str:
    """Return A1111's name of a field of ours, by its path in the request."""
    for known_path in (path, path.partition(".")[0]):
        if known_path in _THEIRS:
            return _THEIRS[known_path]
    return path


def drop_unsupported(body: dict[str, Any], target: Target, notes: list[str]) -> None:
    """Remove the fields that the model does not take, each with a note."""
    names = _supported(body, target.model)
    if names is None:
        return
    for name in [*body]:
        metadata = metadata_of(name)
        if not metadata.any_pipeline and not metadata.image and name not in names:
            del body[name]
            notes.append(f"{their_name(name)}: the model does not take it")


def _supported(body: Mapping[str, Any], model: ModelCapabilities | None) -> list[str] | None:
    if model is None or model.takes is None:
        return None
    mode = "inpaint" if "mask_image" in body else "img2img" if "image" in body else "txt2img"
    by_mode = model.takes_by_mode or {}
    names = by_mode.get(mode, model.takes)
    if "controlnets" in body and "controlnets" in names:
        names = [*by_mode.get(mode + WITH_CONTROLNETS, names), "controlnets"]
    return names if by_mode else [*names, "strength"]
