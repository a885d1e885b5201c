"""What an option of a scheduler may be before its class is known. A leaf."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import PlainValidator, StringConstraints

OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
MAX_OPTION = 1_000_000
"""Bounds whole numbers as well: num_train_timesteps is the length of several arrays."""

_OPTION_TEXT = re.compile(r"[A-Za-z0-9_+-]{1,64}")


def _option(value: object) -> bool | int | float | str:
    """Checked in one place, for a union of types would name each of them as a field."""
    if isinstance(value, str):
        if not _OPTION_TEXT.fullmatch(value):
            raise ValueError("must be 1 to 64 letters, digits, and + - _")
    elif not isinstance(value, bool | int | float):
        raise ValueError("must be true, false, a number or a word")
    elif not abs(value) <= MAX_OPTION:  # neither is NaN
        raise ValueError(f"must be a number from -{MAX_OPTION} to {MAX_OPTION}")
    return value


Option = Annotated[bool | int | float | str, PlainValidator(_option)]
