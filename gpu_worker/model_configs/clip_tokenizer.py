"""Builds CLIP's tokenizer from merges.txt, and merges.txt from OpenAI's vocabulary.

A text encoder of every Stable Diffusion reads the same tokens. Only the padding differs, which the
tokenizer_config.json of a configuration sets. It uses no network.

    pip download --no-deps clip-anytorch==2.6.0
    python -m gpu_worker.model_configs.clip_tokenizer clip_anytorch-2.6.0-py3-none-any.whl
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import zipfile
from pathlib import Path

from transformers import CLIPTokenizer

from gpu_worker.model_configs import FOLDER

MERGES = FOLDER / "merges.txt"

SOURCE, SOURCE_SHA256 = (
    "clip/bpe_simple_vocab_16e6.txt.gz",
    "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
)
"""OpenAI's file in the package clip-anytorch. open-clip-torch has the same file."""

_COUNT = 49152 - 256 - 2
"""The merges that CLIP uses, after the first line (openai/CLIP, `clip/simple_tokenizer.py`)."""

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def tokenizers(config: Path) -> dict[str, CLIPTokenizer]:
    """Return the tokenizers of a configuration by the names of their parts."""
    return {
        file.parent.name: build(json.loads(file.read_text(encoding="utf-8")))
        for file in sorted(config.glob("*/tokenizer_config.json"))
    }


def build(options: dict[str, object]) -> CLIPTokenizer:
    """Return the tokenizer with the options of a tokenizer_config.json."""
    lines = MERGES.read_text(encoding="utf-8").splitlines()[1:]
    merges = [(first, second) for first, second in map(str.split, lines)]
    options = {name: value for name, value in options.items() if name != "tokenizer_class"}
    return CLIPTokenizer(vocab=vocabulary(merges), merges=merges, **options)


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Return the ids of the tokens: bytes, bytes at the end of a word, merges, special tokens."""
    letters = _letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in merges]
    return {token: number for number, token in enumerate((*tokens, *_SPECIAL))}


def _letters() -> list[str]:
    """Return a printable character for each byte, in the order of OpenAI's `bytes_to_unicode`."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = sum(byte not in printable for byte in range(256))
    return [chr(code) for code in (*printable, *range(256, 256 + others))]


def merges_file(wheel: Path) -> bytes:
    """Return the content of merges.txt from the package clip-anytorch.

    Raises:
        ValueError: its vocabulary is not OpenAI's.
    """
    with zipfile.ZipFile(wheel) as package:
        packed = package.read(SOURCE)
    if hashlib.sha256(packed).hexdigest() != SOURCE_SHA256:
        raise ValueError(f"{wheel.name}: {SOURCE} is not the vocabulary of CLIP")
    lines = gzip.decompress(packed).decode().split("\n")[1 : _COUNT + 1]
    return "\n".join(("#version: 0.2", *lines, "")).encode()


if __name__ == "__main__":
    MERGES.write_bytes(merges_file(Path(sys.argv[1])))
