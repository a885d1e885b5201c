"""Reads models.toml, which maps names to files in the models folder. It loads no model.

A name from a client is looked up here and never becomes a path.

    [models.xl]                       # a directory, a .safetensors or .gguf file, or a hub id
    source = "sdxl-base"
    defaults = { num_inference_steps = 30, guidance_scale = 5.0 }
    [loras.pixel]                     # also: embeddings, controlnets, ip_adapters, vaes, upscalers,
    source = "loras/pixel.safetensors"    # refiners
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gpu_worker.contract.field_types import ClassName, Dtype, Name, Option, OptionName, Steps
from gpu_worker.contract.fields import scheduler_names
from gpu_worker.contract.validation_errors import Refusal, field_errors, join_errors

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
"""huggingface_hub's own rule: owner/name, at most 96 characters each."""

EXAMPLE_ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"
"""A model for every GPU. docs/models.md lists more."""

INDEX = "model_index.json"

_UNSAFE = (".bin", ".ckpt", ".pt", ".pth", ".pkl")

SAFE_SUFFIXES = (".safetensors", ".gguf")
"""Formats that hold numbers only; every other one may hold code (pickle)."""

Kind = Literal[
    "models",
    "loras",
    "embeddings",
    "controlnets",
    "ip_adapters",
    "vaes",
    "upscalers",
    "refiners",
]


FILE_KINDS: tuple[Kind, ...] = ("loras", "embeddings", "ip_adapters")
"""Kinds whose entries are one .safetensors file each."""


class ModelsError(Refusal):
    """models.toml, or a file that it names, is invalid. The text names the place and the reason."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Asset(_Table):
    """One entry. A key that its kind does not use is an error.

    `subfolder` and `weight_name` are those of diffusers. `revision` is a commit, and `token` the
    word of an embedding. `variant` chooses weights in a directory that has several, such as fp16.
    """

    HAS_NO: ClassVar[frozenset[str]] = frozenset()

    source: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    revision: Annotated[str, StringConstraints(pattern=r"^[\w./-]{1,100}$")] | None = None
    subfolder: str | None = None
    weight_name: str | None = None
    token: str | None = None
    variant: str | None = None

    @field_validator("revision", "subfolder", "weight_name", "token", "variant")
    @classmethod
    def _has_it(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.field_name in cls.HAS_NO:
            raise ValueError("is not a known field of this table")
        return value


class FileAsset(Asset):
    """A LoRA or an IP-Adapter: one file of weights."""

    HAS_NO = frozenset({"token", "variant"})


class EmbeddingAsset(Asset):
    """A textual inversion: one file and its word."""

    HAS_NO = frozenset({"variant"})


class NetworkAsset(Asset):
    """A ControlNet or a VAE: a directory in diffusers' layout, or a file with its configuration."""

    HAS_NO = frozenset({"weight_name", "token"})


class RefinerAsset(NetworkAsset):
    """A refiner: a directory or a file with its UNet."""


class UpscalerAsset(Asset):
    """An upscaler: one file in the models folder."""

    HAS_NO = frozenset({"revision", "subfolder", "weight_name", "token", "variant"})


class Defaults(_Table):
    """The values of fields that a request leaves out."""

    @model_validator(mode="before")
    @classmethod
    def _friendly_scheduler(cls, value: object) -> object:
        return scheduler_names.expand(value)

    num_inference_steps: Steps | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=50)] | None = None
    scheduler: ClassName | None = None
    scheduler_options: dict[OptionName, Option] = {}


class ModelAsset(Asset):
    """A model."""

    HAS_NO = frozenset({"subfolder", "weight_name", "token"})

    dtype: Dtype | None = None
    defaults: Defaults = Defaults()


class Library(_Table):
    """The content of models.toml."""

    models: dict[Name, ModelAsset] = {}
    loras: dict[Name, FileAsset] = {}
    embeddings: dict[Name, EmbeddingAsset] = {}
    controlnets: dict[Name, NetworkAsset] = {}
    ip_adapters: dict[Name, FileAsset] = {}
    vaes: dict[Name, NetworkAsset] = {}
    upscalers: dict[Name, UpscalerAsset] = {}
    refiners: dict[Name, RefinerAsset] = {}

    def part(self, kind: Kind, name: str) -> Asset:
        """Return the asset of a name.

        Raises:
            ModelsError: no asset of that kind has this name; the text lists the names.
        """
        assets: Mapping[str, Asset] = getattr(self, kind)
        if name not in assets:
            listed = ", ".join(sorted(assets)) or "none"
            raise ModelsError(
                f"no {kind.removesuffix('s')} has the name {name!r}; the names are: {listed}"
            )
        return assets[name]


class ModelNotFound(ValueError):
    """SDE_MODEL names nothing that can be loaded."""


def check_setting(name: str, library: Library, folder: Path, hub_cache: Path) -> None:
    """Check that SDE_MODEL names a model that is on this machine.

    Args:
        folder: the models folder.
        hub_cache: the folder in which the hub library keeps its downloads.

    Raises:
        ModelNotFound: it names no model.
        ModelsError: it names an entry of models.toml whose files are missing.
    """
    if name in library.models:
        source = library.models[name].source
        if locate(folder, source) is None:
            check_cached(source, hub_cache)
    elif name != "demo" and locate_setting(name) is None:
        check_cached(name, hub_cache)


def check_cached(source: str, hub_cache: Path) -> None:
    """Raises ModelsError if the hub's repository is not in the cache: workers download nothing."""
    snapshots = hub_cache / f"models--{source.replace('/', '--')}" / "snapshots"
    if not any(snapshots.glob("*/*")):
        raise ModelsError(
            f"{source}: is not on this machine, and a worker downloads nothing: run "
            f"`sde pull {source}`, which adds the model {source.rpartition('/')[2]} to models.toml"
        )


def locate_setting(name: str) -> Path | None:
    """Return the directory or .safetensors file that SDE_MODEL names; None for a hub id.

    Raises:
        ModelNotFound: it names neither.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise ModelNotFound(f"SDE_MODEL={name}: the directory has no {INDEX}")
        return path
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelNotFound(f"SDE_MODEL={name}: the file does not exist")
        return path
    if path.is_absolute() or path.suffix in _UNSAFE or not HUB_ID.fullmatch(name):
        raise ModelNotFound(
            f"SDE_MODEL={name}: is not demo, a name in models.toml, a directory, a .safetensors "
            f"file or a hub id such as {EXAMPLE_ID}"
        )
    return None


def read(path: Path) -> Library:
    """Return the library in a file, an empty one when there is no file.

    Raises:
        ModelsError: the file is not TOML, or has an invalid entry.
        OSError: the file cannot be read.
    """
    try:
        return Library.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        return Library()
    except ValidationError as error:
        raise ModelsError(f"{path}: {join_errors(field_errors(error))}") from None
    except (ValueError, RecursionError) as error:  # from tomllib, and from bytes that are not UTF-8
        raise ModelsError(f"{path}: {error}") from None


def locate(folder: Path, source: str) -> Path | None:
    """Return the file or directory in the models folder; None if `source` is a hub id.

    Raises:
        ModelsError: it is outside the folder, does not exist, or may hold code.
    """
    root = folder.resolve()
    try:
        path = (root / source).resolve()
        is_there = path.exists()
    except (ValueError, RuntimeError) as error:  # a NUL in it; links in a circle
        raise ModelsError(f"{source!r}: is not a file name: {error}") from None
    if is_there:
        if not path.is_relative_to(root):
            raise ModelsError(f"{source}: leads out of the models folder")
        if path.is_file() and path.suffix not in SAFE_SUFFIXES:
            raise ModelsError(f"{source}: only {' and '.join(SAFE_SUFFIXES)} files are loaded")
        return path
    if HUB_ID.fullmatch(source) and Path(source).suffix not in (*SAFE_SUFFIXES, ".ckpt", ".pt"):
        return None
    raise ModelsError(f"{source}: is neither in the models folder nor a hub id")
