"""Chooses the files of a hub repository that its pipeline needs, from their names.

It also reads the variant in the name of a weights file. It opens no file and knows no hub.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gpu_worker.assets.model_library import INDEX

SUFFIX = ".safetensors"

_WEIGHTS = re.compile(
    r"(?P<stem>[\w-]+?)(?:-\d+-of-(?P<old>\d+))?(?:\.(?P<variant>[a-z]\w*))?"
    r"(?:-\d+-of-(?P<count>\d+))?\.safetensors"
)
"""STEM.VARIANT-00001-of-00002.safetensors; older versions of diffusers wrote the variant last."""

_WEIGHT_INDEX = re.compile(r".*\.(?:safetensors|bin|h5|msgpack)\.index\..*json")

_STEMS = ("model", "diffusion_pytorch_model")
"""The names of weights that transformers and diffusers load."""

_OTHER_WEIGHTS = frozenset(
    (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".onnx", ".onnx_data", ".ot", ".pb")
) | {".pkl", ".pt", ".pth", ".tflite", ".xml"}
"""Weights in formats that are not loaded, and OpenVINO's description of them."""

_CODE = frozenset((".ipynb", ".py", ".pyc", ".sh", ".so"))

_WITHOUT_WEIGHTS = re.compile(r"Tokenizer|Processor|Extractor|Scheduler")
"""Parts of class names whose objects consist of configuration and vocabulary."""


class NoModelFound(ValueError):
    """The repository has no model that can be loaded; the text says what is missing."""


@dataclass(frozen=True)
class Selection:
    """The files of a repository to download, and the variant with which diffusers loads them."""

    files: list[str]
    variant: str | None


@dataclass(frozen=True)
class _WeightSet:
    """The weights of one part in one variant: one file, or `count` shards."""

    stem: str
    variant: str | None
    count: int

    @property
    def index(self) -> str:
        """Return the name of the file that lists the shards."""
        return f"{self.stem}{SUFFIX}.index." + (f"{self.variant}." if self.variant else "") + "json"


def variant_of(name: str) -> str | None:
    """Return the variant in the name of a weights file, such as fp16."""
    match = _WEIGHTS.fullmatch(name)
    return None if match is None else match["variant"]


def select(files: Sequence[str], index: Mapping[str, Any], variant: str | None) -> Selection:
    """Return the files that a pipeline needs: each part's folder with one set of weights.

    A part without weights of `variant` gets those without a variant. A part that has neither gets
    its only variant, if no other part needs another one.

    Args:
        files: the paths of all files in the repository, with `/`.
        index: the content of its model_index.json.

    Raises:
        NoModelFound: a part has no usable weights, or no files at all.
    """
    folders = {part: _folder(files, part) for part in _parts(index)}
    networks = {
        part: _sets(folders[part])
        for part, (_, class_name) in _parts(index).items()
        if not _WITHOUT_WEIGHTS.search(class_name)
    }
    chosen = variant or _forced_variant(networks)
    if variant and not any(each.variant == variant for sets in networks.values() for each in sets):
        raise NoModelFound(f"it has no {SUFFIX} weights of {variant}")
    selected = [INDEX]
    for part, names in folders.items():
        selected += [f"{part}/{name}" for name in names if _is_plain(name)]
        if part in networks:
            library = _parts(index)[part][0]
            weights = _choose(part, networks[part], library, variant, chosen)
            selected += [f"{part}/{name}" for name in _names(weights, names)]
    return Selection(sorted(selected), chosen)


def _parts(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return library and class of each part that is not null."""
    return {
        part: (entry[0], entry[1])
        for part, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and all(isinstance(e, str) for e in entry)
    }


def _folder(files: Sequence[str], part: str) -> list[str]:
    names = [name.removeprefix(f"{part}/") for name in files if name.startswith(f"{part}/")]
    if not names:
        raise NoModelFound(f"{INDEX} names {part}, but the repository has no such folder")
    return names


def _is_plain(name: str) -> bool:
    """Return whether a file is neither weights, nor their index, nor code."""
    suffix = PurePosixPath(name).suffix
    is_weights = suffix == SUFFIX or suffix in _OTHER_WEIGHTS or _WEIGHT_INDEX.fullmatch(name)
    return not is_weights and suffix not in _CODE


def _sets(names: Sequence[str]) -> list[_WeightSet]:
    """Return the complete sets of weights in a folder."""
    sets = dict.fromkeys(_set_of(name) for name in names)
    return [each for each in sets if each is not None and _is_complete(each, names)]


def _set_of(name: str) -> _WeightSet | None:
    match = _WEIGHTS.fullmatch(name)
    if match is None or match["stem"] not in _STEMS:
        return None
    return _WeightSet(match["stem"], match["variant"], int(match["count"] or match["old"] or 1))


def _is_complete(weights: _WeightSet, names: Sequence[str]) -> bool:
    shards = sum(_set_of(name) == weights for name in names)
    return shards == weights.count and (weights.count == 1 or weights.index in names)


def _names(weights: _WeightSet, names: Sequence[str]) -> Iterator[str]:
    yield from (name for name in names if _set_of(name) == weights)
    if weights.count > 1:
        yield weights.index


def _forced_variant(networks: Mapping[str, Sequence[_WeightSet]]) -> str | None:
    """Return the variant of parts without other weights; fp16 if such a part has several.

    Raises:
        NoModelFound: no variant is in all these parts, for diffusers loads one at a time.
    """
    variants = {part: {each.variant for each in sets} for part, sets in networks.items() if sets}
    choices = {part: own for part, own in variants.items() if None not in own}
    if not choices:
        return None
    common = set.intersection(*choices.values())
    if not common:
        listed = ", ".join(
            f"{part} only {' and '.join(sorted(map(str, own)))}" for part, own in choices.items()
        )
        raise NoModelFound(f"its parts have no variant of weights in common: {listed}")
    return "fp16" if "fp16" in common else sorted(map(str, common))[0]


def _choose(
    part: str, sets: Sequence[_WeightSet], library: str, requested: str | None, chosen: str | None
) -> _WeightSet:
    """Return the set of a part; of two, the one whose name its library reads, in one file."""
    stem = _STEMS[library == "diffusers"]
    for variant in (requested, None, chosen):
        own = [each for each in sets if each.variant == variant]
        if own:
            return min(own, key=lambda each: (each.stem != stem, each.count))
    if not sets:
        raise NoModelFound(f"its {part} has no {SUFFIX} weights, or lacks some of the shards")
    variants = " and ".join(sorted({str(each.variant) for each in sets}))
    raise NoModelFound(f"its {part} has only {variants} weights; use --variant {sets[0].variant}")
