"""SHA-256 of weight files, remembered while a file's size and time stay. It loads no model."""

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
    """Digests of files. The JSON file `memory` keeps them across restarts. Thread-safe."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = _read(memory)

    def of(self, place: Path) -> str:
        """Return the SHA-256 of a file, or of a directory with weight files, in hex.

        The digest of a directory is that of the lines `<path>\\t<sha256>\\n`, sorted by path. The
        paths are relative, with `/`.

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
        """Return the digest of a .safetensors file without its header, in hex.

        Model sites name a LoRA by it (AutoV3), because programs write notes into the header.

        Raises:
            OSError: the file cannot be read.
        """
        return self._of_file(file, "tensors")

    def _of_file(self, file: Path, part: str) -> str:
        info = file.stat()
        state = {"size": info.st_size, "mtime_ns": info.st_mtime_ns}
        key = f"{part}:{file.resolve()}"
        with self._lock:
            entry = self._entries.get(key, {})
        if all(entry.get(name) == value for name, value in state.items()):
            return str(entry["sha256"])
        digest = _digest(file, after_header=part == "tensors")
        with self._lock:
            self._entries[key] = {**state, "sha256": digest}
            self._write()
        return digest

    def _write(self) -> None:
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(self._memory, orjson.dumps(self._entries, option=orjson.OPT_INDENT_2))
        except OSError as error:
            log.warning("digests of weights cannot be stored: %s", error)


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
    """Return the stored digests; none when the file is missing or foreign."""
    try:
        entries = orjson.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {
        key: entry
        for key, entry in entries.items()
        if isinstance(entry, dict) and isinstance(entry.get("sha256"), str)
    }
