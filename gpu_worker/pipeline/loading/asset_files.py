"""Finds the files behind the names of models.toml, in the models folder or on the hub.

It accepts safetensors only.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError, safe_open

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import Asset, Kind, Library, ModelsError
from gpu_worker.assets.repository_files import variant_of
from gpu_worker.pipeline.loading import checkpoints
from gpu_worker.pipeline.loading.recent_networks import RecentNetworks, file_states

SUFFIX = ".safetensors"

_OLD_ATTENTION = ".attentions.0.query.weight"
"""A VAE's layer as diffusers named it before 0.18. Only from_pretrained renames such layers."""

DEVICE_ERRORS = (torch.OutOfMemoryError, torch.AcceleratorError)
"""RuntimeErrors of the device, which are not about a file: they are raised unchanged."""


def check_header(file: Path, label: str) -> list[str]:
    """Return the names of a .safetensors file's tensors, without reading the tensors.

    Args:
        label: the operator's name for the file, for errors.

    Raises:
        ModelsError: the file is damaged, or is not a safetensors file.
        OSError: the file cannot be read.
    """
    try:
        with safe_open(file, framework="pt") as weights:
            return list(weights.keys())
    except SafetensorError as error:
        raise ModelsError(f"{label}: {file.name} is damaged or not safetensors: {error}") from None


def configuration(
    file: Path, subfolder: str | None, inner: str | None, label: str
) -> tuple[Path, str | None]:
    """Return the directory and subfolder with the configuration of a network's single file.

    Without it diffusers would ask the hub, and a job would wait for that.

    Args:
        inner: the subfolder of this network in a pipeline's directory, if it can come from one.

    Raises:
        ModelsError: it is not on this machine.
    """
    place = _configuration(file, subfolder, inner)
    if place is None:
        folder = "/".join(filter(None, (file.with_suffix("").name, subfolder)))
        raise ModelsError(f"{label}: {file.name} needs its config.json in {folder}/ beside it")
    return place


def _configuration(
    file: Path, subfolder: str | None, inner: str | None
) -> tuple[Path, str | None] | None:
    """Return the directory beside the file, or that of this package for a whole model, or None."""
    beside = file.with_suffix("")
    own = subfolder or (inner if inner and (beside / inner).is_dir() else None)
    if (beside / (own or "") / "config.json").is_file():
        return beside, own
    shipped = checkpoints.shipped_configuration(file) if inner else None
    return None if shipped is None else (shipped, inner)


def stored_variant(folder: Path, variant: str | None, label: str) -> str | None:
    """Return which weights of a network's directory to load: `variant`, or those without one.

    Raises:
        ModelsError: it has neither, but other variants.
    """
    variants = {variant_of(path.name) for path in folder.glob(f"*{SUFFIX}")}
    if variant in variants:
        return variant
    if variants and None not in variants:
        names = sorted(map(str, variants))
        advice = f'set variant = "{names[-1]}" in models.toml'
        raise ModelsError(f"{label} has only {' and '.join(names)} weights; {advice}")
    return None


@dataclass
class AssetFiles:
    """The files of models.toml's assets.

    `library` is the current models.toml. `cache_dir` holds downloads from the hub; None means the
    hub library's default. `recent` keeps networks of the last job.
    """

    library: Library
    folder: Path
    cache_dir: str | None = None
    recent: RecentNetworks = field(default_factory=RecentNetworks)

    def recent_network(
        self,
        kind: Kind,
        name: str,
        networks: dict[str, Any],
        dtype: torch.dtype,
        inner: str | None = None,
    ) -> Any:
        """Return a network as `network` does, or the one that the last job loaded from the files.

        Raises:
            ModelsError: see `network`.
        """

        def load() -> Any:
            return self.network(kind, name, networks, dtype, inner)

        asset, path = self.part(kind, name)
        if path is None:
            return load()
        places = (path, path.with_suffix("")) if path.is_file() else (path,)
        return self.recent.get(kind, (asset, dtype, inner, file_states(*places)), load)

    def part(self, kind: Kind, name: str) -> tuple[Asset, Path | None]:
        """Return the asset of this name and its path; the path is None for the hub.

        Raises:
            ModelsError: the name is unknown, or its path is outside the models folder, or its
                format may hold code.
        """
        asset = self.library.part(kind, name)
        return asset, model_library.locate(self.folder, asset.source)

    def file(self, kind: Kind, name: str) -> Path:
        """Return the asset's .safetensors file.

        Raises:
            ModelsError: there is no file, or several and no `weight_name` to choose one.
        """
        asset, path = self.part(kind, name)
        weight_name = asset.weight_name
        if weight_name is not None and Path(weight_name).suffix != SUFFIX:
            raise ModelsError(f"{kind}.{name}: weight_name {weight_name!r} is not a {SUFFIX} file")
        if path is None:
            return self._cached_file(kind, name, asset)
        if path.is_dir():
            path = self._file_in(path, asset, f"{kind}.{name}")
        if path.suffix != SUFFIX:
            raise ModelsError(f"{kind}.{name}: {path.name} is not a {SUFFIX} file")
        return path

    def _file_in(self, folder: Path, asset: Asset, label: str) -> Path:
        subfolder = (folder / (asset.subfolder or "")).resolve()
        if asset.weight_name is not None:
            files = [subfolder / asset.weight_name]
        else:
            files = sorted(subfolder.glob(f"*{SUFFIX}"))
        files = [path.resolve() for path in files if path.is_file()]
        if len(files) != 1:
            names = ", ".join(path.name for path in files) or "none"
            raise ModelsError(
                f"{label}: {subfolder.name}/ must hold one {SUFFIX} file, or weight_name must "
                f"choose one; it holds: {names}"
            )
        if not files[0].is_relative_to(self.folder.resolve()):
            raise ModelsError(f"{label}: {files[0].name} is outside the models folder")
        return files[0]

    def _cached_file(self, kind: Kind, name: str, asset: Asset) -> Path:
        """Return a file of the hub that is in its cache. Raises ModelsError."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        if asset.weight_name is None:
            raise ModelsError(f"{kind}.{name}: a hub id needs weight_name, a {SUFFIX} file")
        try:
            path = hf_hub_download(
                asset.source,
                asset.weight_name,
                subfolder=asset.subfolder,
                revision=asset.revision,
                cache_dir=self.cache_dir,
                local_files_only=True,
            )
        except LocalEntryNotFoundError:
            raise ModelsError(
                f"{kind}.{name}: {asset.weight_name} of {asset.source} is not on this machine, and "
                "a worker downloads nothing: put the file into the models folder"
            ) from None
        return Path(path)

    def network(
        self,
        kind: Kind,
        name: str,
        networks: dict[str, Any],
        dtype: torch.dtype,
        inner: str | None = None,
        like: Any = None,
    ) -> Any:
        """Load a network from a directory, a single file or the hub.

        The configuration of a single file is in the directory of the same name beside it.

        Args:
            networks: the accepted diffusers classes by name.
            inner: the subfolder in a pipeline's directory, unless models.toml has `subfolder`.
            like: a network whose configuration a single file has if it has none of its own.

        Raises:
            ModelsError: the name is unknown, or its network is of another class or cannot be
                loaded.
        """
        asset, path = self.part(kind, name)
        label = f"{kind}.{name}"
        try:
            if path is not None and path.is_file():
                return _network_in(path, asset, networks, dtype, inner, like, label)
            return self._network(path, asset, networks, dtype, inner, label)
        except (ModelsError, *DEVICE_ERRORS):
            raise
        except (NotImplementedError, SingleFileComponentError) as error:
            # torch raises the first for tensors without data.
            raise ModelsError(f"{label}: {asset.source} lacks weights of its network") from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelsError(f"{label}: {asset.source} cannot be loaded: {error}") from error

    def _network(
        self,
        path: Path | None,
        asset: Asset,
        networks: dict[str, Any],
        dtype: torch.dtype,
        inner: str | None,
        label: str,
    ) -> Any:
        """Load a network from a directory or the hub."""
        location = asset.source if path is None else str(path)
        subfolder = asset.subfolder
        if subfolder is None and inner and (path is None or (path / inner).is_dir()):
            subfolder = inner
        options = {
            "cache_dir": self.cache_dir,
            "local_files_only": True,
            "subfolder": subfolder,
            "revision": asset.revision,
        }
        cls = _class(networks, location, options, f"{label}: {asset.source}")
        variant = asset.variant
        if path is not None:
            variant = stored_variant(path / (subfolder or ""), variant, label)
        return cls.from_pretrained(
            location, use_safetensors=True, variant=variant, dtype=dtype, **options
        )


def _network_in(
    file: Path,
    asset: Asset,
    networks: dict[str, Any],
    dtype: torch.dtype,
    inner: str | None,
    like: Any,
    label: str,
) -> Any:
    """Load a network from a single file, in diffusers' layout or in that of the original code."""
    keys = check_header(file, label)
    checkpoints.check_weights(keys, label)
    with tempfile.TemporaryDirectory() as folder:
        place = _configuration(file, asset.subfolder, inner)
        if place is None and like is not None and type(like).__name__ in networks:
            like.save_config(folder)
            place = Path(folder), None
        location, subfolder = place or configuration(file, asset.subfolder, inner, label)
        options = {"subfolder": subfolder, "local_files_only": True}
        cls = _class(networks, str(location), options, f"{label}: {asset.source}")
        if not any(key.endswith(_OLD_ATTENTION) for key in keys):
            return cls.from_single_file(str(file), config=str(location), dtype=dtype, **options)
        cls.from_config(cls.load_config(str(location), **options)).save_config(folder)
        (Path(folder) / f"diffusion_pytorch_model{SUFFIX}").symlink_to(file.resolve())
        return cls.from_pretrained(folder, use_safetensors=True, dtype=dtype, local_files_only=True)


def _class(networks: dict[str, Any], location: str, options: dict[str, Any], label: str) -> Any:
    """Return the class that a configuration names.

    Raises:
        ModelsError: it is none of `networks`.
    """
    config = next(iter(networks.values())).load_config(location, **options)
    name = str(config.get("_class_name"))
    if name not in networks:
        raise ModelsError(f"{label} holds {name}, not {' or '.join(networks)}")
    return networks[name]
