"""Keeps the networks of a job's adapters in RAM, so that the next job need not read their files.

It keeps the last one of each kind, and only for a CUDA device: a CPU and MPS compute in the same
memory.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpu_worker import host_memory
from gpu_worker.pipeline.execution import offload

log = logging.getLogger(__name__)

FREE_SHARE = 2
"""How many times its size must be available in RAM, for a network to stay there."""


@dataclass
class _Entry:
    """A network, what it was loaded from, and its weights as they were loaded."""

    identity: Hashable
    network: Any
    weights: dict[str, torch.Tensor]
    is_in_use: bool = True

    def leave_device(self) -> None:
        """Give the network its weights in RAM.

        Hooks of an earlier job may have left it in a reference cycle, so its memory on the device
        would be free only after a collection.
        """
        self.network.load_state_dict(self.weights, assign=True)
        self.is_in_use = False


class RecentNetworks:
    """The networks that stay in RAM for the device, by a name for their kind."""

    def __init__(
        self,
        device: torch.device | None = None,
        available_bytes: Callable[[], int] = host_memory.available_bytes,
    ) -> None:
        self._is_active = device is not None and device.type == "cuda"
        self._available_bytes = available_bytes
        self._entries: dict[str, _Entry] = {}

    def get(self, kind: str, identity: Hashable, load: Callable[[], Any]) -> Any:
        """Return the kept network of this identity, or else load it.

        A network serves once in a job; a second request for it loads another.
        """
        entry = self._entries.get(kind)
        if entry is not None and not entry.is_in_use:
            if entry.identity == identity:
                entry.is_in_use = True
                return entry.network
            del self._entries[kind], entry
        network = load()
        if self._is_active and kind not in self._entries:
            self._entries[kind] = _Entry(identity, network, network.state_dict())
        return network

    @contextlib.contextmanager
    def job(self) -> Iterator[None]:
        """Give the networks of a job their weights in RAM again when it ends.

        After a job that fails, nothing is kept: its networks may be in disorder, and the memory may
        be short.
        """
        try:
            yield
        except BaseException:
            self.clear()
            raise
        for kind, entry in list(self._entries.items()):
            if entry.is_in_use:
                entry.leave_device()
                entry.network.to("cpu")  # buffers that no file has
            if self._available_bytes() < FREE_SHARE * offload.weight_bytes(entry.network):
                log.info("%s: the network does not stay in RAM, which is short", kind)
                del self._entries[kind]

    def clear(self) -> None:
        """Forget all networks. Their weights leave the device at once, which calls no driver."""
        for entry in self._entries.values():
            entry.leave_device()
        self._entries.clear()


def file_states(*places: Path) -> tuple[tuple[str, int, int], ...]:
    """Return path, size and time of the files, and of those in the directories."""
    files = [file for place in places for file in (place, *sorted(place.rglob("*")))]
    states = [(file, file.stat()) for file in files if file.is_file()]
    return tuple((str(file), state.st_size, state.st_mtime_ns) for file, state in states)
