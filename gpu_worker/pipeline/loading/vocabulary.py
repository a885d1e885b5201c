"""Reads which words a model knows, where its folder says so, and names the others of a prompt.

The built-in model has such a file. A model that learned from the web's captions has none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FILE = "vocabulary.json"
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_MAX_WORDS = 8
_MAX_CHARS = 40


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model.

    `draws` names all that it draws in a word or two, and `things` are the names of it. `words` are
    single words with an effect or without harm: parts of those names, synonyms, colours, and the
    small words of a sentence.
    """

    draws: str
    things: tuple[str, ...]
    words: frozenset[str]

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the prompt's words that the model does not know, each once and in order."""
        words = (match[0].lower() for match in _WORD.finditer(prompt))
        return list(dict.fromkeys(word for word in words if word not in self.words))

    def warnings(self, prompt: str) -> list[str]:
        """Return a sentence about the unknown words; no sentence if all are known."""
        unknown = self.unknown_words(prompt)
        if not unknown:
            return []
        words = [f"{word[:_MAX_CHARS]}…" if len(word) > _MAX_CHARS else word for word in unknown]
        rest = "" if len(words) <= _MAX_WORDS else f" and {len(words) - _MAX_WORDS} more words"
        text = ", ".join(words[:_MAX_WORDS])
        return [f"The built-in model draws {self.draws}. It does not know: {text}{rest}."]


def of(folder: Path | None) -> Vocabulary | None:
    """Return the vocabulary in a model's folder, or None if there is none."""
    file = None if folder is None else folder / FILE
    if file is None or not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    return Vocabulary(content["draws"], tuple(content["things"]), frozenset(content["words"]))
