"""Writes durable files: appends whole lines, replaces whole files, and adds checksums.

A write is complete or has no effect, and it is on the disk when the call returns. The module knows
nothing of the content.

    {"any": "object", ... ,"crc32":"89abcdef"}\\n      crc32 of all bytes before `,"crc32"`
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO

_TAIL_FORMAT = b',"crc32":"%08x"}\n'
TAIL_BYTES = len(_TAIL_FORMAT % 0)
_LOOK_BACK_BYTES = 1 << 16
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def open_plain(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: the file cannot be read, or is a link, a pipe or a directory.
    """
    # Opening a pipe would block.
    descriptor = os.open(path, _READ | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return open(descriptor, "rb", buffering=buffering)


def read_plain(path: Path) -> bytes:
    """Return the content of a file. Raises OSError as open_plain() does."""
    with open_plain(path) as file:
        return file.read()


def refuse_link(path: Path) -> None:
    """Raises OSError (ELOOP) if the path is a symbolic link. Its parents are the service's own."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link, which is not followed", str(path))


class DamagedLine(ValueError):
    """A line differs from what was written. It is skipped and counted."""


class NewerLine(DamagedLine):
    """A line is whole, but a newer version of this program wrote it. It is never skipped."""


class StoreTooNew(OSError):
    """A file of the store is of a newer version. Nothing of it was changed."""

    def __init__(self, path: Path, error: object) -> None:
        super().__init__(
            f"{path} is from a newer version of this program: it {error}. Start that version, or "
            "restore a copy of the store from before the upgrade. Nothing was changed"
        )


def with_checksum(body: bytes) -> bytes:
    """Return a line from a JSON object without its closing brace, with zlib's CRC-32."""
    return body + _TAIL_FORMAT % zlib.crc32(body)


def verify_checksum(line: bytes) -> None:
    """Raises DamagedLine if the line is incomplete or its checksum does not match."""
    verify_parts(line[:1], line[-TAIL_BYTES:], zlib.crc32(memoryview(line)[:-TAIL_BYTES]))


def verify_parts(head: bytes, tail: bytes, checksum: int) -> None:
    """Verify a line by its first byte, its last TAIL_BYTES, and the CRC-32 of all before those.

    Raises:
        DamagedLine: the line is incomplete or its checksum does not match.
    """
    if tail == _TAIL_FORMAT % checksum and head == b"{":
        return
    if head != b"{" or tail[:10] != _TAIL_FORMAT[:10] or tail[-3:] != b'"}\n':
        raise DamagedLine("is not a whole record")
    raise DamagedLine("does not match its checksum")


def sync_directory(directory: Path) -> None:
    """Flush the directory's entries after a create, a rename or an unlink (fsync(2))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Call write(2) until all is written, because a full disk first writes a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace(path: Path, content: bytes) -> None:
    """Replace a file. Its content is the old or the new one at every moment.

    Raises:
        OSError: the content is the old or the new one, and may not be on the disk yet.
    """
    with replacement(path) as descriptor:
        write_all(descriptor, content)


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[int]:
    """Replace a file by what the block writes to the descriptor. Raises OSError."""
    draft = path.with_name(path.name + ".tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(draft, flags, 0o600)
        try:
            yield descriptor
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync_directory(path.parent)


def whole_length(path: Path) -> int:
    """Return the offset after the last whole line, found from the end.

    Raises:
        OSError: the file cannot be read.
    """
    descriptor = os.open(path, _READ)
    try:
        return _after_newline(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def lines_backwards(path: Path, end: int) -> Generator[tuple[int, bytes]]:
    """Yield offset and text of each whole line before `end`, the last one first. Raises OSError."""
    descriptor = os.open(path, _READ)
    try:
        while end > 0:
            begin = _after_newline(descriptor, end - 1)
            yield begin, os.pread(descriptor, end - begin, begin)
            end = begin
    finally:
        os.close(descriptor)


def last_line(path: Path) -> bytes:
    """Return the last whole line with its newline, or nothing. Raises OSError."""
    with contextlib.closing(lines_backwards(path, whole_length(path))) as lines:
        return next(lines, (0, b""))[1]


def _after_newline(descriptor: int, end: int) -> int:
    """Return the offset after the last newline before `end`, 0 without one. Raises OSError."""
    while end > 0:
        start = max(0, end - _LOOK_BACK_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


class AppendFile:
    """The one writer of a file of lines. It is not thread-safe.

    Args:
        valid_length: finds the offset up to which an opened file is kept; it raises OSError.
    """

    def __init__(self, path: Path, valid_length: Callable[[Path], int] = whole_length) -> None:
        self.path = path
        self._valid_length = valid_length
        self.committed = 0
        self._descriptor = -1
        self._dirty = False

    @property
    def is_open(self) -> bool:
        """Return whether the file can be appended to."""
        return self._descriptor >= 0

    def open(self) -> int:
        """Open or create the file for appending, and cut what a crash has left incomplete.

        Returns:
            The number of bytes that were cut.

        Raises:
            OSError: the file cannot be opened, read or cut. A symbolic link is not opened.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            whole = self._valid_length(self.path)
            if whole < size:
                os.ftruncate(descriptor, whole)
            os.fdatasync(descriptor)
            sync_directory(self.path.parent)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self.committed, self._dirty = descriptor, whole, False
        return size - whole

    def append(self, lines: bytes) -> None:
        """Write whole lines and flush them to the disk.

        Raises:
            OSError: nothing was written. The file has been cut back, or is cut back before the next
                write.
        """
        if self._dirty:
            self._cut_back()
        try:
            write_all(self._descriptor, lines)
            # After a failed sync the kernel drops the pages and the next sync would lie
            # (PostgreSQL's "fsyncgate"): the lines are cut, and the caller writes them again.
            os.fdatasync(self._descriptor)
        except OSError:
            self._dirty = True
            with contextlib.suppress(OSError):
                self._cut_back()
            raise
        self.committed += len(lines)

    def close(self) -> None:
        """Close the file. It cannot be appended to afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _cut_back(self) -> None:
        os.ftruncate(self._descriptor, self.committed)
        self._dirty = False
