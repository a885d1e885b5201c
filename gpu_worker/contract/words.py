"""What words a request may hold: how many, and which characters. A leaf."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

MAX_PROMPT_CHARS = 4000
"""Some fifty times the 77 tokens that CLIP reads at once, far below what would burden the log."""


def _printable(text: str) -> str:
    """Refuse what cannot be stored or confuses a terminal; keep line breaks, tabs, any script.

    Raises:
        ValueError: on a lone surrogate or a control character.
    """
    for char in text:
        if "\ud800" <= char <= "\udfff":
            raise ValueError("must not contain a lone surrogate")
        if (char < " " and char not in "\n\t\r") or "\x7f" <= char <= "\x9f":
            raise ValueError(f"must not contain the control character U+{ord(char):04X}")
    return text


def not_blank(text: str) -> str:
    """Raises ValueError when there is nothing but white space."""
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARS), AfterValidator(_printable)]
