"""Ends with a message that holds HF_TOKEN, as a library in despair does."""

from __future__ import annotations

import os
from typing import NoReturn


def load(settings: object) -> NoReturn:
    """Ends the process."""
    raise SystemExit(f"the token is {os.environ['HF_TOKEN']}")
