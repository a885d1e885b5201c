"""Which tiny families a run has. They are apart because their import takes seconds."""

from __future__ import annotations

from bench.gpu import card
from tests.support.builders.tiny_families import FAMILIES


def family_names() -> list[str]:
    """Return the families of the tiny models: all, or a few without a real card.

    The tests draw every family on the make-believe card.
    """
    names = list(FAMILIES)
    return names[:: len(names) // 4] if card.is_make_believe() else names
