"""Names the weight files that are loaded of a model or an asset, by the libraries' own names.

Other variants and leftovers in a directory are not among them. It reads no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpu_worker.assets.model_library import INDEX, SAFE_SUFFIXES, ModelsError
from gpu_worker.pipeline.loading import sources

_NAMES = ("diffusion_pytorch_model", "model")
"""The beginnings of weight files that diffusers and transformers load."""

_REFINER_PARTS = ("unet", "text_encoder_2", "vae")
"""What `gpu_worker.pipeline.sampling.refiner_loading` loads of a refiner's directory."""


def loaded_files(place: Path, kind: str, variant: str | None) -> list[Path]:
    """Return the weight files that are loaded from a file or a directory, sorted by path.

    A directory that has them under other names gives all weight files below it.
    """
    if place.is_file():
        return [place]
    files = [file for part in _parts(place, kind) for file in _weights(place / part, variant)]
    return sorted(files or _weights(place, variant) or _all(place))


def _parts(place: Path, kind: str) -> Sequence[str]:
    """Return the subfolders of a directory from which something is loaded."""
    if kind == "refiners":
        return _REFINER_PARTS
    if kind != "models" or not (place / INDEX).is_file():
        return ()
    try:
        index = sources.index(place)
    except ModelsError:
        return ()
    return [
        part
        for part, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
    ]


def _weights(folder: Path, variant: str | None) -> list[Path]:
    """Return a network's files of the variant, else those without one, as diffusers does."""
    files = sources.weights(folder, variant) or sources.weights(folder, None)
    return [file for file in files if file.name.startswith(_NAMES)] or files


def _all(place: Path) -> list[Path]:
    return [file for file in place.rglob("*") if file.suffix in SAFE_SUFFIXES]
