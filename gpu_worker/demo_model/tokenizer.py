"""Builds the demonstration model's CLIP tokenizer: bytes plus one token for each recipe word.

It trains no merges on text; words outside the recipe encode byte by byte.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from transformers import CLIPTokenizer

MAX_TOKENS = 77
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_END = "</w>"


def _byte_symbols() -> list[str]:
    """One printable character for each byte, as byte-level BPE writes them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in symbols)
    symbols.update({byte: chr(256 + rank) for rank, byte in enumerate(others)})
    return [symbols[byte] for byte in range(256)]


def _split(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """The word's pieces under the merges so far: lowest rank first, as BPE does."""
    pieces = [*word[:-1], word[-1] + _END]
    while True:
        pairs = [(ranks[p], k) for k, p in enumerate(itertools.pairwise(pieces)) if p in ranks]
        if not pairs:
            return pieces
        _, k = min(pairs)
        pieces[k : k + 2] = [pieces[k] + pieces[k + 1]]


def _merges_for(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges that leave each word whole.

    A word's missing merges go behind all earlier ones, so they can't break an earlier word: while
    that one is unfinished, a merge of lower rank is always open to it.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = _split(word, ranks)
        while len(pieces) > 1:
            ranks[(pieces[0], pieces[1])] = len(ranks)
            pieces = _split(word, ranks)
    return list(ranks)


def build_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer (77 tokens at most) in which each of the words is one token."""
    merges = _merges_for(words)
    symbols = _byte_symbols()
    entries = [*symbols, *(symbol + _END for symbol in symbols)]
    entries += dict.fromkeys(a + b for a, b in merges)
    vocab = {entry: index for index, entry in enumerate([*dict.fromkeys(entries), BOS, EOS])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)
