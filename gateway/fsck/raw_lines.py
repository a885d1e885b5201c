"""Reads a file of lines as an examination needs it: what is whole, what is damaged or torn. A leaf.

Knows checksums, not what the lines say. Memory stays flat: no line beyond the scan.s limit is held.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gateway.fsck.report import Kind, Part, Report
from gpu_worker.contract import output_size
from gpu_worker.store import durable, scan

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for ever


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: it cannot be read, or is a link, a pipe or a directory.
    """
    file = open(path, "rb", buffering=scan.CHUNK_BYTES, opener=lambda name, _: os.open(name, _READ))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is no plain file")
    return file


def check_lines(path: Path, writer: str, survey: Report) -> Iterator[tuple[int, bytes]]:
    """Offset and text of the lines whose checksum is right; the survey takes the rest, and, of a
    file that could be read, where its last whole line ends."""
    try:
        with open_plain(path) as file:
            end, size = 0, os.fstat(file.fileno()).st_size
            for offset, length, text in scan.whole_lines(file, end=size):
                end = offset + length
                reason = _damage(text)
                if reason:
                    survey.find(Kind.DAMAGED, path, offset, f"{length} bytes: it {reason}")
                    survey.take_out(path, Part(offset, length))
                elif text is not None:
                    yield offset, text
            survey.read_to[path] = end
            if end < size:
                _torn(path, writer, survey, Part(end, size - end))
    except FileNotFoundError as error:
        if not survey.is_live("gateway"):
            cannot_read(path, error, survey)
            return
        reason = "is gone: the gateway has merged it meanwhile"
        survey.find(Kind.MISSING, path, None, reason, is_fault=False)
    except OSError as error:
        cannot_read(path, error, survey)


def cannot_read(path: Path, error: OSError, survey: Report) -> None:
    """A fault that nobody here can mend."""
    survey.find(Kind.UNREADABLE, path, None, error.strerror or str(error))


def _damage(text: bytes | None) -> str:
    if text is None:
        return f"is longer than {output_size.MAX_LINE_BYTES} bytes"
    try:
        durable.verify_checksum(text)
    except durable.DamagedLine as error:
        return str(error)
    return ""


def _torn(path: Path, writer: str, survey: Report, part: Part) -> None:
    if survey.is_live(writer):
        reason = f"{part.length} bytes: {writer} is appending a line"
        survey.find(Kind.TORN, path, part.offset, reason, is_fault=False)
    else:
        reason = f"{part.length} bytes of a line without its end"
        survey.find(Kind.TORN, path, part.offset, reason)
        survey.take_out(path, part)
