"""SHA-256 of weight files, remembered while a file's size and time stay. It loads no model."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpu_worker.assets.model_library import SAFE_SUFFIXES
from gpu_worker.store import durable

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
LOCK_TIMEOUT_S = 10.0

_TABLE = """CREATE TABLE IF NOT EXISTS digests (
    key TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT
) WITHOUT ROWID"""


class FileDigests:
    """Digests of files. The SQLite file `memory` keeps them for all workers of a service."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def of(self, place: Path, files: Sequence[Path] | None = None) -> str:
        """Return the SHA-256 of a file, or of a directory with weight files, in hex.

        The digest of a directory is that of the lines `<path>\\t<sha256>\\n`, sorted by path. The
        paths are relative, with `/`.

        Args:
            files: those of the directory that count; None: all weight files in it.

        Raises:
            OSError: a file cannot be read.
        """
        if place.is_file():
            return self._of_file(place, "")
        if files is None:
            files = [path for path in place.rglob("*") if path.suffix in SAFE_SUFFIXES]
        listed = sorted(
            (path.relative_to(place).as_posix(), path) for path in files if path.is_file()
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
        state = (f"{part}:{file.resolve()}", info.st_size, info.st_mtime_ns)
        digest = self._read(state)
        if digest is None:
            digest = _digest(file, after_header=part == "tensors")
            self._write(state, digest)
        return digest

    def _read(self, state: tuple[str, int, int]) -> str | None:
        """Return the stored digest of a file in this state; None without one."""
        question = "SELECT sha256 FROM digests WHERE key = ? AND size = ? AND mtime_ns = ?"
        with contextlib.suppress(sqlite3.Error, OSError), self._opened() as memory:
            row = memory.execute(question, state).fetchone()
            return None if row is None else str(row[0])
        return None

    def _write(self, state: tuple[str, int, int], digest: str) -> None:
        try:
            with self._opened() as memory, memory:
                memory.execute(
                    "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (*state, digest)
                )
        except sqlite3.OperationalError as error:  # the disk, or another process for too long
            log.warning("digests of weights cannot be stored: %s", error)
        except (sqlite3.DatabaseError, OSError) as error:
            log.warning("the stored digests of weights are damaged and begin anew: %s", error)
            with contextlib.suppress(OSError):
                self._memory.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        durable.refuse_link(self._memory)
        opened = sqlite3.connect(self._memory, timeout=LOCK_TIMEOUT_S)
        with contextlib.closing(opened):
            opened.execute(_TABLE)
            yield opened


def _digest(file: Path, after_header: bool) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        if after_header:
            # safetensors: eight bytes, little endian, say how long the JSON header is.
            opened.seek(8 + int.from_bytes(opened.read(8), "little"))
        while chunk := opened.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
