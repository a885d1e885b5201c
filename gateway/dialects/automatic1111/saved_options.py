"""Keeps the options that clients set in a file, as AUTOMATIC1111 does. They outlive a restart."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from gpu_worker.store import durable

log = logging.getLogger(__name__)

AUTOMATIC = "Automatic"

MAX_CLIP_LAYERS = 12
"""The most that AUTOMATIC1111 takes for CLIP_stop_at_last_layers."""

Name = Annotated[str, StringConstraints(max_length=300)]


class Options(BaseModel):
    """The options that have an effect here. `checkpoint` is the title of a model, if one is set."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    checkpoint: Name | None = None
    vae: Name = AUTOMATIC
    clip_layers: Annotated[int, Field(ge=1, le=MAX_CLIP_LAYERS)] = 1


class OptionsFile:
    """The file of the options."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Options:
        """Return the options in the file; the defaults where there is none that can be read."""
        try:
            return Options.model_validate_json(durable.read_plain(self._path))
        except FileNotFoundError:
            return Options()
        except (OSError, ValidationError):
            log.warning("%s cannot be read; its options have their defaults", self._path.name)
            return Options()

    def write(self, options: Options) -> None:
        """Replace the file. On a disk that refuses it, the options end with this process."""
        try:
            durable.replace(self._path, options.model_dump_json().encode())
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path.name, error.strerror)
