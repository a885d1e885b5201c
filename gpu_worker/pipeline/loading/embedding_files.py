"""Reads the files of textual inversions: their word, and their vectors for each text encoder.

Describing a file reads only its header. `load` reads the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.loading.asset_files import AssetFiles, check_header

ENCODERS = {"clip_l": "", "clip_g": "_2", "text_encoders_0": "", "text_encoders_1": "_2"}
"""Keys of files for SDXL, and the suffix of the encoder and tokenizer that each is for."""

FORMAT_KEYS = (*ENCODERS, "emb_params", "string_to_param", "*")
"""Keys that name a format, not a word."""

MAX_VECTORS = 1024
"""A file with more vectors is the table of a text encoder, not a textual inversion."""

_EXPECTED = "must hold vectors of the text encoder's width, in the shape (vectors, width)"


@dataclass(frozen=True)
class LearnedWord:
    """The word of a textual inversion, and the keys of its tensors by encoder.

    An encoder of None stands for the one with the same width. `vectors` is the largest count.
    """

    word: str
    keys: dict[str | None, str]
    vectors: int


def describe(files: AssetFiles, name: str) -> LearnedWord:
    """Return the word of the textual inversion `name`.

    Raises:
        ModelsError: the name is not in models.toml, or its file is not a textual inversion.
        OSError: its file cannot be read.
    """
    return _describe(files, name, files.file("embeddings", name))


def load(files: AssetFiles, name: str) -> tuple[LearnedWord, dict[str | None, torch.Tensor]]:
    """Return the word, and its vectors of shape (n, width) by encoder.

    Raises:
        ModelsError: as in describe().
        OSError: the file cannot be read.
    """
    file = files.file("embeddings", name)
    learned = _describe(files, name, file)
    tensors = load_file(file)
    return learned, {
        encoder: tensors[key].reshape(-1, tensors[key].shape[-1])
        for encoder, key in learned.keys.items()
    }


def _describe(files: AssetFiles, name: str, file: Path) -> LearnedWord:
    label = f"embeddings.{name}"
    check_header(file, label)
    with safe_open(file, framework="pt") as tensors:
        shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
        kinds = {key: str(tensors.get_slice(key).get_dtype()) for key in shapes}
    keys = _keys(label, list(shapes))
    counts = [_count(label, key, shapes[key], kinds[key]) for key in keys.values()]
    key = next(iter(keys.values()))
    word = files.library.part("embeddings", name).token or (name if key in FORMAT_KEYS else key)
    word = " ".join(word.split())
    if not word:
        raise ModelsError(f"{label}: the file has an empty word; set `token` in models.toml")
    return LearnedWord(word, keys, max(counts))


def _keys(label: str, keys: list[str]) -> dict[str | None, str]:
    by_encoder: dict[str | None, str] = {ENCODERS[key]: key for key in keys if key in ENCODERS}
    if by_encoder and len(by_encoder) == len(keys):
        return by_encoder
    if len(keys) != 1:
        count = f"its file holds {len(keys)} tensors"
        raise ModelsError(f"{label}: is not a textual inversion, which holds one tensor: {count}")
    return {None: keys[0]}


def _count(label: str, key: str, shape: tuple[int, ...], kind: str) -> int:
    """Return the number of vectors of a tensor. Other dimensions must have one element."""
    rows = [side for side in shape[:-1] if side != 1]
    if not shape or shape[-1] == 0 or len(rows) > 1 or rows == [0]:
        sides = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        raise ModelsError(f"{label}: the tensor {key!r} {_EXPECTED}; its shape is {sides}")
    if not kind.startswith(("F", "BF")):
        raise ModelsError(f"{label}: the tensor {key!r} must hold fractions; its type is {kind}")
    count = rows[0] if rows else 1
    if count > MAX_VECTORS:
        limit = f"holds {count} vectors; a textual inversion has at most {MAX_VECTORS}"
        raise ModelsError(f"{label}: the tensor {key!r} {limit}")
    return count
