"""Cannot be loaded, as a model that is missing."""

from __future__ import annotations


def load(settings: object) -> object:
    """Raises."""
    raise FileNotFoundError("no such model, on purpose")
