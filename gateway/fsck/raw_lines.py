"""Reads a file of lines and reports the damaged and torn ones. It knows nothing of their content.

Memory stays flat, because no line beyond the limit of a scan is held.
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

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe would block


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: the file cannot be read, or is a link, a pipe or a directory.
    """
    file = open(path, "rb", buffering=scan.CHUNK_BYTES, opener=lambda name, _: os.open(name, _READ))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file")
    return file


def check_lines(path: Path, writer: str, report: Report) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and text of each line with a correct checksum.

    All other lines, and the end of the last whole line, go into the report.
    """
    try:
        with open_plain(path) as file:
            end, size = 0, os.fstat(file.fileno()).st_size
            for offset, length, text in scan.whole_lines(file, end=size):
                end = offset + length
                reason = _damage(text)
                if reason:
                    report.find(Kind.DAMAGED, path, offset, f"{length} bytes: the line {reason}")
                    report.take_out(path, Part(offset, length))
                elif text is not None:
                    yield offset, text
            report.read_to[path] = end
            if end < size:
                _torn(path, writer, report, Part(end, size - end))
    except FileNotFoundError as error:
        if not report.is_live("gateway"):
            cannot_read(path, error, report)
            return
        reason = "has been merged by the gateway during the check"
        report.find(Kind.MISSING, path, None, reason, is_fault=False)
    except OSError as error:
        cannot_read(path, error, report)


def cannot_read(path: Path, error: OSError, report: Report) -> None:
    """Report a file that cannot be read, which fsck cannot repair."""
    report.find(Kind.UNREADABLE, path, None, error.strerror or str(error))


def foreign_line(path: Path, offset: int, error: durable.DamagedLine, report: Report) -> None:
    """Report a line that another version wrote, and may still read."""
    reason = f"its checksum is correct, but it {error}"
    report.find(Kind.FOREIGN, path, offset, reason, is_fault=False)


def _damage(text: bytes | None) -> str:
    if text is None:
        return f"is longer than {output_size.MAX_LINE_BYTES} bytes"
    try:
        durable.verify_checksum(text)
    except durable.DamagedLine as error:
        return str(error)
    return ""


def _torn(path: Path, writer: str, report: Report, part: Part) -> None:
    if report.is_live(writer):
        reason = f"{part.length} bytes: {writer} is appending a line"
        report.find(Kind.TORN, path, part.offset, reason, is_fault=False)
    else:
        reason = f"{part.length} bytes of an incomplete line"
        report.find(Kind.TORN, path, part.offset, reason)
        report.take_out(path, part)
