"""SHA-256 of weight files, remembered while a file's size and time stay. A leaf; loads no model."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path
from typing import Any

import orjson

from gpu_worker.assets.model_library import SAFE_SUFFIXES
from gpu_worker.store import durable

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20


class FileDigests:
    """Digests of files; `memory` is the JSON file that keeps them over restarts. Thread-safe."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = _read(memory)

    def of(self, place: Path) -> str:
        """Of a file its own SHA-256; of a directory that of its weight files, in hex: SHA-256 of
        the lines `<path>\\t<sha256>\\n`, the path relative, with `/`, sorted by it.

        Raises:
            OSError: a file cannot be read.
        """
        if place.is_file():
            return self._of_file(place, "")
        listed = sorted(
            (path.relative_to(place).as_posix(), path)
            for path in place.rglob("*")
            if path.suffix in SAFE_SUFFIXES and path.is_file()
        )
        lines = "".join(f"{name}\t{self._of_file(path, '')}\n" for name, path in listed)
        return hashlib.sha256(lines.encode()).hexdigest()

    def of_tensors(self, file: Path) -> str:
        """Of what follows the header of a .safetensors file: its name on the model sites for a
        LoRA (AutoV3), for the header is where programs write notes.

        Raises:
            OSError: the file cannot be read.
        """
        return self._of_file(file, "tensors")

    def _of_file(self, file: Path, part: str) -> str:
        found = file.stat()
        state = {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
        key = f"{part}:{file.resolve()}"
        with self._lock:
            known = self._known.get(key, {})
        if all(known.get(name) == value for name, value in state.items()):
            return str(known["sha256"])
        made = _digest(file, after_header=part == "tensors")
        with self._lock:
            self._known[key] = {**state, "sha256": made}
            self._write()
        return made

    def _write(self) -> None:
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(self._memory, orjson.dumps(self._known, option=orjson.OPT_INDENT_2))
        except OSError as error:
            log.warning("digests of weights are not remembered: %s", error)


def _digest(file: Path, after_header: bool) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        if after_header:
            # safetensors: eight bytes, little endian, say how long the JSON header is.
            opened.seek(8 + int.from_bytes(opened.read(8), "little"))
        while chunk := opened.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read(memory: Path) -> dict[str, dict[str, Any]]:
    """Nothing where it is not there or not ours: it is only a short cut."""
    try:
        known = orjson.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {
        key: entry
        for key, entry in known.items()
        if isinstance(entry, dict) and isinstance(entry.get("sha256"), str)
    }
