"""A reply that is read from the log while it is sent.

waitress reads it in its main thread when the client takes more. So a slow reader holds neither
memory nor a thread, and nothing goes through a temporary file.
"""

from __future__ import annotations

import io
from typing import Protocol

LARGE_BYTES = 128 << 10
"""A smaller reply is sent from memory."""


class Part(Protocol):
    """Some bytes of a reply."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from start up to stop, fewer at the end."""
        ...


class InMemory:
    """A part that is in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from start up to stop, fewer at the end."""
        return self._content[start:stop]


class ReplyFile:
    """Parts as one file that can be read and sought (io.RawIOBase has more than waitress needs)."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts
        self._size = sum(map(len, parts))
        self._at = 0

    def __len__(self) -> int:
        return self._size

    def seekable(self) -> bool:
        """Return that it can be sought."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position and return it."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = min(max(0, origin + offset), self._size)
        return self._at

    def read(self, size: int | None = None, /) -> bytes:
        """Return up to `size` bytes; all that are left without it. Raises OSError, ValueError."""
        is_limited = size is not None and size >= 0
        stop = min(self._at + (size or 0), self._size) if is_limited else self._size
        pieces, begin = [], 0
        for part in self._parts:
            end = begin + len(part)
            if begin < stop and end > self._at:
                pieces.append(part.read(max(self._at - begin, 0), min(stop, end) - begin))
            begin = end
        content = b"".join(pieces)
        if len(content) != stop - self._at:
            raise OSError("the log has become shorter")  # waitress would wait for ever
        self._at += len(content)
        return content

    def close(self) -> None:
        """Let go of the parts."""
        self._parts, self._size = (), 0
