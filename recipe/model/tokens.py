"""The words that the model knows, and its CLIP tokenizer: bytes plus one token for each word.

It trains no merges on text; words outside the vocabulary encode byte by byte.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import torch
from transformers import CLIPTokenizer

from recipe.images import scenes
from recipe.images.nouns import nouns, same_words
from recipe.images.sprites import STYLES

MAX_TOKENS = 32
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


def build_tokenizer(words: Iterable[str], max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of the words is one token."""
    merges = _merges_for(words)
    symbols = _byte_symbols()
    entries = [*symbols, *(symbol + _END for symbol in symbols)]
    entries += dict.fromkeys(a + b for a, b in merges)
    vocab = {entry: index for index, entry in enumerate([*dict.fromkeys(entries), BOS, EOS])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_tokens)


SAME_GRAMMAR = {
    "big": "large", "huge": "large", "giant": "large", "little": "small", "tiny": "small",
    "grey": "gray", "violet": "purple", "under": "below", "beneath": "below", "over": "above",
}  # fmt: skip
"""Other words for those of the grammar."""


def meanings() -> dict[str, str]:
    """Every word that means the same as another one, and that other one."""
    return same_words() | SAME_GRAMMAR


def grammar() -> tuple[str, ...]:
    """The words of captions that name no noun: colours, styles, sizes, places and the rest."""
    phrases = (
        *scenes.ORDERS, *scenes.BACKGROUNDS, *scenes.TINTS, *scenes.RELATIONS, *scenes.PLACES,
        *scenes.SIZES, *STYLES, *scenes.FILLERS, "a an and background",
    )  # fmt: skip
    text = " ".join(phrases)
    for field in ("{subject}", "{style}", "{background}", "{a_background}"):
        text = text.replace(field, " ")
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def vocabulary() -> list[str]:
    """Every word that is one token: the grammar, the nouns' words, their synonyms and plurals."""
    words = [*grammar(), *" ".join(nouns()).split(), *meanings()]
    return list(dict.fromkeys(words))


HARMLESS = (
    "the is are was be it its that this these with without in into from for to by or as my your "
    "our some one single only just very nice please draw show me make colored coloured color "
    "colour size sized style styled art icon emoji sticker render rendered"
)
"""Words that the model passes over and that nobody needs to be warned of."""


def accepted_words() -> list[str]:
    """Every word that a prompt may have without a warning, sorted."""
    return sorted({*vocabulary(), *HARMLESS.split()})


def model_tokenizer() -> CLIPTokenizer:
    """The tokenizer of the built-in model."""
    return build_tokenizer(vocabulary())


@torch.no_grad()
def share_meanings(
    embedding: torch.nn.Embedding, tokenizer: CLIPTokenizer, meanings: Mapping[str, str]
) -> None:
    """Give each synonym its noun's vector: the training sees the noun alone."""
    numbers = tokenizer.get_vocab()
    for word, noun in meanings.items():
        embedding.weight[numbers[word + _END]] = embedding.weight[numbers[noun + _END]]
