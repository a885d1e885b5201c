"""Finds the files behind the names of models.toml: under the models folder, or on the hub.

safetensors only. Loads none of them.
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
"""RuntimeErrors that say nothing of a file: they pass through."""


def check_header(file: Path, said: str) -> list[str]:
    """The names of a .safetensors file's tensors; none of them is read.

    Args:
        said: what the operator calls it.

    Raises:
        ModelsError: it is damaged, or none.
        OSError: it cannot be read.
    """
    try:
        with safe_open(file, framework="pt") as weights:
            return list(weights.keys())
    except SafetensorError as error:
        raise ModelsError(f"{said}: {file.name} is damaged, or no safetensors: {error}") from None


@dataclass
class AssetFiles:
    """`library` is what models.toml says now. `cache_dir` keeps what comes from the hub; None: the
    hub library's own place."""

    library: Library
    folder: Path
    cache_dir: str | None = None

    def part(self, kind: Kind, name: str) -> tuple[Asset, Path | None]:
        """What the name stands for, and where it lies; None: on the hub.

        Raises:
            ModelsError: unknown, outside the folder, or of a format that may hold code.
        """
        part = self.library.part(kind, name)
        return part, model_library.locate(self.folder, part.source)

    def file(self, kind: Kind, name: str) -> Path:
        """The one .safetensors file that the name stands for.

        Raises:
            ModelsError: there is none, or more than one and no `weight_name` to choose by.
        """
        part, path = self.part(kind, name)
        wanted = part.weight_name
        if wanted is not None and Path(wanted).suffix != SUFFIX:
            raise ModelsError(f"{kind}.{name}: weight_name {wanted!r} is no {SUFFIX} file")
        if path is None:
            return self._fetched(kind, name, part)
        if path.is_dir():
            path = self._within(path, part, f"{kind}.{name}")
        if path.suffix != SUFFIX:
            raise ModelsError(f"{kind}.{name}: {path.name} is no {SUFFIX} file")
        return path

    def _within(self, folder: Path, part: Asset, said: str) -> Path:
        inner = (folder / (part.subfolder or "")).resolve()
        if part.weight_name is not None:
            found = [inner / part.weight_name]
        else:
            found = sorted(inner.glob(f"*{SUFFIX}"))
        found = [path.resolve() for path in found if path.is_file()]
        if len(found) != 1:
            listed = ", ".join(path.name for path in found) or "none"
            raise ModelsError(
                f"{said}: {inner} must hold one {SUFFIX} file or weight_name must choose; "
                f"there are: {listed}"
            )
        if not found[0].is_relative_to(self.folder.resolve()):
            raise ModelsError(f"{said}: leads out of the models folder {self.folder}")
        return found[0]

    def _fetched(self, kind: Kind, name: str, part: Asset) -> Path:
        from huggingface_hub import hf_hub_download

        if part.weight_name is None:
            raise ModelsError(f"{kind}.{name}: a hub id needs weight_name, a {SUFFIX} file")
        return Path(
            hf_hub_download(
                part.source,
                part.weight_name,
                subfolder=part.subfolder,
                revision=part.revision,
                cache_dir=self.cache_dir,
            )
        )

    def variant(self, kind: Kind, name: str) -> str | None:
        """fp16 or so: which weights of a directory that holds several."""
        return self.library.part(kind, name).variant

    def network(
        self,
        kind: Kind,
        name: str,
        networks: dict[str, Any],
        dtype: torch.dtype,
        inner: str | None = None,
    ) -> Any:
        """The network of a directory, of a single file (its configuration in the directory of the
        same name beside it, else the hub's), or of a hub id.

        Args:
            networks: the diffusers classes that will do; the first is a single file's without
                configuration.
            inner: where a pipeline's directory has it, unless models.toml says `subfolder`.

        Raises:
            ModelsError: unknown, of another class, or it cannot be loaded as that.
        """
        part, path = self.part(kind, name)
        is_file = path is not None and path.is_file()
        where = part.source if path is None else str(path.with_suffix("") if is_file else path)
        common = {"cache_dir": self.cache_dir, "local_files_only": path is not None and not is_file}
        within = part.subfolder
        if within is None and inner and (path is None or (Path(where) / inner).is_dir()):
            within = inner
        place = common | {"subfolder": within, "revision": part.revision}
        found = next(iter(networks))
        try:
            is_described = not is_file or (Path(where) / (within or "") / "config.json").is_file()
            if is_described:
                first = networks[found]
                found = str(first.load_config(where, **place).get("_class_name"))
            if found not in networks:
                wanted = " or ".join(networks)
                raise ModelsError(f"{kind}.{name}: {part.source} is a {found}, not a {wanted}")
            if is_file:
                config = where if is_described else None
                return networks[found].from_single_file(
                    str(path), config=config, subfolder=within, dtype=dtype, **common
                )
            return networks[found].from_pretrained(
                where,
                use_safetensors=True,
                variant=self.variant(kind, name),
                dtype=dtype,
                **place,
            )
        except (ModelsError, *DEVICE_ERRORS):
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelsError(f"{kind}.{name}: {part.source} cannot be loaded: {error}") from error
