"""Follows the memory of CPU tensors: what is noted of a storage lasts as long as the storage."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch


class Storages:
    """The storages that were added and still live. Views of one storage count once."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return _key(tensor.untyped_storage()) in self._sizes

    def add(self, tensor: torch.Tensor, on_free: Callable[[int], None] = lambda _: None) -> None:
        """Add the storage of a CPU tensor; `on_free` is called with its bytes when it is freed."""
        storage = tensor.untyped_storage()
        key, size = _key(storage), int(storage.nbytes())
        self._sizes[key] = size

        def forget() -> None:
            del self._sizes[key]
            on_free(size)

        weakref.finalize(storage, forget).atexit = False


def _key(storage: Any) -> int:
    """Return the address of the C++ object, which is the storage's own while it lives."""
    return int(storage._cdata)
