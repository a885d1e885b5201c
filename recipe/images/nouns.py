"""The nouns that the model draws, the emoji that shows each, and other words for it.

It reads `nouns.txt`, whose lines are `emoji noun: synonym synonym`, and draws nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

_LIST = Path(__file__).with_name("nouns.txt")


@dataclass(frozen=True)
class Noun:
    """A thing that the model draws; the synonyms and plurals are words that mean the same."""

    word: str
    emoji: str
    synonyms: tuple[str, ...] = ()

    @property
    def plurals(self) -> tuple[str, ...]:
        """Regular plurals of the noun and its synonyms, one word each."""
        words = [word for word in (self.word, *self.synonyms) if " " not in word]
        return tuple(plural(word) for word in words if not word.endswith("s"))


def plural(word: str) -> str:
    """The regular English plural."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"


@functools.cache
def catalogue() -> dict[str, Noun]:
    """Every noun by its word, in the order of the list: a noun's place is its number."""
    entries: dict[str, Noun] = {}
    for line in _LIST.read_text(encoding="utf-8").splitlines():
        emoji, words = line.split(" ", 1)
        word, _, synonyms = words.partition(": ")
        entries[word] = Noun(word, emoji, tuple(synonyms.split()))
    return entries


@functools.cache
def nouns() -> tuple[str, ...]:
    """The nouns' words in their fixed order."""
    return tuple(catalogue())


@functools.cache
def same_words() -> dict[str, str]:
    """Every other single word for a noun of one word, and that noun."""
    meanings: dict[str, str] = {}
    for noun in catalogue().values():
        if " " not in noun.word:
            for word in (*noun.synonyms, *noun.plurals):
                meanings.setdefault(word, noun.word)
    return {word: noun for word, noun in meanings.items() if word not in catalogue()}


def codepoints(emoji: str) -> str:
    """The emoji as packages name it: hexadecimal, joined by hyphens, no variation selector."""
    return "-".join(f"{ord(sign):x}" for sign in emoji if ord(sign) != 0xFE0F)
