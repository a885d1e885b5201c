"""Disks that take no more, fail, or die in the middle."""

from __future__ import annotations

import errno
import os
import resource
from typing import Any

import psutil
import pytest

from tests.support.service import Service


def may_grow_to(service: Service, name: str, size_bytes: int | None) -> None:
    """Files of that process may not grow past so many bytes: short writes, then EFBIG (no root)."""
    limit = UNLIMITED if size_bytes is None else (size_bytes, resource.RLIM_INFINITY)
    psutil.Process(service.children[name].pid).rlimit(psutil.RLIMIT_FSIZE, limit)


class Crash(BaseException):
    """A death: no handler of ours runs."""


class FaultyDisk:
    """Makes the Nth call of the named functions of `os` fail, once; or kill, before or after it."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, vice: str) -> None:
        self.calls = 0
        self._number, self._vice = number, vice
        for name in FAULTY:
            patch.setattr(os, name, self._wrap(getattr(os, name), name))

    def _wrap(self, real: Any, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.calls < 0:
                raise Crash
            self.calls += 1
            if self.calls != self._number:
                return real(*arguments, **options)
            if self._vice == "error":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if self._vice == "short" and name == "write":
                return real(arguments[0], bytes(arguments[1])[:3])
            if self._vice == "after":
                real(*arguments, **options)
            if self._vice in ("before", "after"):
                self.calls = -1
                raise Crash
            return real(*arguments, **options)

        return call


UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

FAULTY = ("write", "fdatasync", "fsync", "replace", "ftruncate", "open", "unlink")
