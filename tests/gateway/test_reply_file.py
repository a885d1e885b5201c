"""Rows 21 and 40: a reply is read from the log piece by piece, and images leave free space."""

from __future__ import annotations

import base64
import io
import os
import random
from pathlib import Path

import pytest

from gateway.errors import StorageUnavailable
from gateway.http.reply_file import InMemory, ReplyFile
from gateway.store.disk_space import DiskSpace
from gateway.store.stored_bytes import DecodedBase64, Descriptor, StoredBytes


def stored(path: Path, before: bytes, content: bytes) -> StoredBytes:
    """The content behind other bytes in a file."""
    path.write_bytes(before + content + b"behind")
    return StoredBytes(Descriptor(str(path)), len(before), len(content))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100, 3000, 3001, 3002])
def test_row_40_any_piece_of_a_reply_is_right(tmp_path: Path, size: int) -> None:
    chance = random.Random(size)
    content = chance.randbytes(size)
    text = base64.b64encode(content)
    parts = [
        InMemory(b"["),
        DecodedBase64(stored(tmp_path / "a", b"xyz", text)),
        InMemory(b",\n"),
        stored(tmp_path / "b", b"", content),
    ]
    reply, expected = ReplyFile(*parts), io.BytesIO(b"[" + content + b",\n" + content)
    assert len(reply) == len(expected.getvalue())
    for _ in range(300):
        at, length = chance.randrange(len(reply) + 1), chance.randrange(-1, size + 9)
        assert reply.seek(at) == expected.seek(at)
        assert reply.read(length) == expected.read(length)
        assert reply.tell() == expected.tell()
    (tmp_path / "b").unlink()  # a merge removes segments that are still being sent
    reply.seek(0)
    assert reply.read() == expected.getvalue()


def test_row_40_a_log_that_has_become_shorter_ends_the_reply(tmp_path: Path) -> None:
    """waitress would ask for the missing bytes for ever."""
    reply = ReplyFile(stored(tmp_path / "a", b"", b"0123456789"))
    (tmp_path / "a").write_bytes(b"0123")
    assert reply.read(4) == b"0123"
    with pytest.raises(OSError, match="shorter"):
        reply.read(4)


def test_row_21_images_of_a_request_leave_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def have_free(mib: int) -> None:
        blocks = (4096, 1 << 20, 4096, mib, mib, 0, 0, 0, 0, 255)
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(blocks))

    disk = DiskSpace(tmp_path, 64 << 20, list)
    have_free(100)
    disk.check(30 << 20)
    with pytest.raises(StorageUnavailable, match=r"the request take 40 MiB; 64 must stay free"):
        disk.check((39 << 20) + 1)
    have_free(10)
    with pytest.raises(StorageUnavailable, match=r"10 MiB free; 64 must stay free"):
        disk.check()
