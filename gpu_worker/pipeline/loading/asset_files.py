"""Finds the files behind the names of models.toml, in the models folder or on the hub.

It accepts safetensors only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import Asset, Kind, Library, ModelsError

SUFFIX = ".safetensors"

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


def check_config(file: Path, subfolder: str | None, label: str) -> None:
    """Check that a single file of a network has its configuration beside it.

    Without it diffusers would ask the hub, and a job would wait for that.

    Raises:
        ModelsError: it has none.
    """
    beside = file.with_suffix("")
    if not (beside / (subfolder or "") / "config.json").is_file():
        place = "/".join(filter(None, (beside.name, subfolder)))
        raise ModelsError(f"{label}: {file.name} needs its config.json in {place}/ beside it")


@dataclass
class AssetFiles:
    """The files of models.toml's assets.

    `library` is the current models.toml. `cache_dir` holds downloads from the hub; None means the
    hub library's default.
    """

    library: Library
    folder: Path
    cache_dir: str | None = None

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
            return self._download(kind, name, asset)
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

    def _download(self, kind: Kind, name: str, asset: Asset) -> Path:
        from huggingface_hub import hf_hub_download

        if asset.weight_name is None:
            raise ModelsError(f"{kind}.{name}: a hub id needs weight_name, a {SUFFIX} file")
        return Path(
            hf_hub_download(
                asset.source,
                asset.weight_name,
                subfolder=asset.subfolder,
                revision=asset.revision,
                cache_dir=self.cache_dir,
            )
        )

    def variant(self, kind: Kind, name: str) -> str | None:
        """Return which weights of a directory with several to load, such as fp16."""
        return self.library.part(kind, name).variant

    def network(
        self,
        kind: Kind,
        name: str,
        networks: dict[str, Any],
        dtype: torch.dtype,
        inner: str | None = None,
    ) -> Any:
        """Load a network from a directory, a single file or the hub.

        The configuration of a single file is in the directory of the same name beside it.

        Args:
            networks: the accepted diffusers classes by name.
            inner: the subfolder in a pipeline's directory, unless models.toml has `subfolder`.

        Raises:
            ModelsError: the name is unknown, or its network is of another class or cannot be
                loaded.
        """
        asset, path = self.part(kind, name)
        is_file = path is not None and path.is_file()
        location = asset.source if path is None else str(path.with_suffix("") if is_file else path)
        common = {"cache_dir": self.cache_dir, "local_files_only": path is not None and not is_file}
        subfolder = asset.subfolder
        if subfolder is None and inner and (path is None or (Path(location) / inner).is_dir()):
            subfolder = inner
        options = common | {"subfolder": subfolder, "revision": asset.revision}
        try:
            if path is not None and is_file:
                check_config(path, subfolder, f"{kind}.{name}")
            cls = next(iter(networks.values()))
            class_name = str(cls.load_config(location, **options).get("_class_name"))
            if class_name not in networks:
                expected = " or ".join(networks)
                raise ModelsError(
                    f"{kind}.{name}: {asset.source} holds {class_name}, not {expected}"
                )
            if is_file:
                return networks[class_name].from_single_file(
                    str(path), config=location, subfolder=subfolder, dtype=dtype, **common
                )
            return networks[class_name].from_pretrained(
                location,
                use_safetensors=True,
                variant=self.variant(kind, name),
                dtype=dtype,
                **options,
            )
        except (ModelsError, *DEVICE_ERRORS):
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelsError(f"{kind}.{name}: {asset.source} cannot be loaded: {error}") from error
