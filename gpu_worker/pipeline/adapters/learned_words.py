"""Finds the words of textual inversions in a text and replaces them by the tokens of their vectors.

diffusers searches for tokens, in the order of a set. This search is for whole words, the longest
first, in any case. So it depends neither on the vocabulary nor on the process.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken

_PRIVATE = range(0xF0000, 0xFFFFE)
"""Unicode's private use area A: one character for each vector, which no prompt means as text."""


class LearnedWords:
    """Words, and the characters that stand for their vectors."""

    def __init__(self, tokens: dict[str, str]) -> None:
        """`tokens` has the characters of the vectors of each word."""
        self._words = sorted(tokens, key=lambda word: (-len(word), word))
        self._tokens = tokens
        parts = (f"({_pattern(word)})" for word in self._words)
        self._search = re.compile("|".join(parts), re.IGNORECASE)

    def expand(self, text: str) -> str:
        """Return the text with each word replaced by its characters."""
        return self._search.sub(lambda match: self._tokens[self._word(match)], _composed(text))

    def used(self, text: str) -> set[str]:
        """Return the words that the text contains."""
        return {self._word(match) for match in self._search.finditer(_composed(text))}

    def _word(self, match: re.Match[str]) -> str:
        return self._words[(match.lastindex or 1) - 1]


def _composed(text: str) -> str:
    """Return the text with composed accents, as CLIP's tokenizer reads it."""
    return unicodedata.normalize("NFC", text)


def _pattern(word: str) -> str:
    """Return a pattern of the word, but not within another one such as `bad-hands-5`."""
    pattern = r"\s+".join(re.escape(part) for part in _composed(word).split())
    if re.match(r"\w", word):
        pattern = r"(?<!\w)(?<!\w-)" + pattern
    if re.search(r"\w\Z", word):
        pattern += r"(?!\w|-\w|\.\d)"
    return pattern


class _ExpandingTokenizer:
    """A mixin for a tokenizer that expands the words before the tokenizer reads a text."""

    learned: LearnedWords

    def __call__(self, text: Any = None, *arguments: Any, **options: Any) -> Any:
        if isinstance(text, str):
            text = self.learned.expand(text)
        elif isinstance(text, list | tuple):
            text = [self.learned.expand(part) if isinstance(part, str) else part for part in text]
        return super().__call__(text, *arguments, **options)  # type: ignore[misc]


def teach(tokenizer: Any, counts: dict[str, int], prompts: Iterable[str]) -> dict[str, list[int]]:
    """Add words to a tokenizer, which must be a copy for one job.

    Args:
        counts: the number of vectors of each word.
        prompts: the texts that the tokenizer will read; their characters keep their meaning.

    Returns:
        The ids of the vectors of each word.
    """
    occupied = set("".join(prompts)) | set(tokenizer.added_tokens_encoder)
    free = (chr(code) for code in _PRIVATE if chr(code) not in occupied)
    tokens = {word: "".join(next(free) for _ in range(count)) for word, count in counts.items()}
    tokenizer.add_tokens([AddedToken(each, normalized=False) for each in "".join(tokens.values())])
    own = type(tokenizer)
    tokenizer.__class__ = type(
        own.__name__, (_ExpandingTokenizer, own), {"__module__": own.__module__}
    )
    tokenizer.learned = LearnedWords(tokens)
    return {word: tokenizer.convert_tokens_to_ids(list(each)) for word, each in tokens.items()}
