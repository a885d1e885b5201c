"""Reads a part of a segment piece by piece, so that no large record is in memory as a whole."""

from __future__ import annotations

import binascii
import os
from collections.abc import Iterator

PIECE_BYTES = 256 << 10


class Descriptor:
    """A file descriptor that its last user closes: a segment may be removed while it is read."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class StoredBytes:
    """Some bytes of a segment, which never change."""

    def __init__(self, descriptor: Descriptor, offset: int, length: int) -> None:
        self._descriptor, self._offset, self._length = descriptor, offset, length

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from start up to stop, fewer at the end. Raises OSError."""
        length = min(stop, self._length) - start
        return os.pread(self._descriptor.number, max(0, length), self._offset + start)

    def part(self, start: int, stop: int) -> StoredBytes:
        """Return a part of these bytes."""
        return StoredBytes(self._descriptor, self._offset + start, stop - start)

    def identity(self) -> tuple[int, ...]:
        """Return what changes when the file is written: its inode, time, and the place."""
        status = os.fstat(self._descriptor.number)
        place = (self._offset, self._length)
        return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, *place)

    def pieces(self) -> Iterator[bytes]:
        """Yield all bytes in pieces. Raises OSError."""
        for start in range(0, self._length, PIECE_BYTES):
            yield self.read(start, start + PIECE_BYTES)


class DecodedBase64:
    """The bytes that stored base64 stands for (RFC 4648, section 4, without line breaks)."""

    def __init__(self, text: StoredBytes) -> None:
        self._text = text
        padding = text.read(len(text) - 2, len(text)).count(b"=")
        self._length = len(text) // 4 * 3 - padding

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from start up to stop, fewer at the end.

        Raises:
            OSError: the segment cannot be read.
            binascii.Error: the text is not base64.
        """
        first, last = start // 3, -(-stop // 3)
        decoded = binascii.a2b_base64(self._text.read(first * 4, last * 4))
        return decoded[start - first * 3 : stop - first * 3]
