"""The memory of each device: bytes alive, their peak, and a limit that raises torch's own error.

A tensor's storage counts from the operation that makes it until it is freed, as with a caching
allocator that gives nothing back. Temporaries inside a single operation do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tests.support.cuda.storages import Storages

MIB = 1 << 20
GIB = 1 << 30


@dataclass
class DeviceMemory:
    """The memory of one device.

    `limit_bytes` is what this process may take of `total_bytes`; both may be set at any time.
    """

    index: int
    total_bytes: int
    limit_bytes: int
    allocated_bytes: int = 0
    peak_bytes: int = 0
    out_of_memory_errors: int = 0
    _storages: Storages = field(default_factory=Storages)

    def allocate(self, host: torch.Tensor) -> None:
        """Count the storage of a tensor that this device holds, once.

        Raises:
            torch.OutOfMemoryError: the storage does not fit; then nothing is counted.
        """
        if host in self._storages:
            return
        size = int(host.untyped_storage().nbytes())
        if self.allocated_bytes + size > self.limit_bytes:
            self.out_of_memory_errors += 1
            raise torch.OutOfMemoryError(self._message(size))
        self._storages.add(host, self._free)
        self.allocated_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)

    def free_bytes(self) -> int:
        """Return the bytes that an allocation may still take."""
        return max(min(self.limit_bytes, self.total_bytes) - self.allocated_bytes, 0)

    def reset_peak(self) -> None:
        """Begin a new measurement of the peak."""
        self.peak_bytes = self.allocated_bytes

    def _free(self, size: int) -> None:
        self.allocated_bytes -= size

    def _message(self, size: int) -> str:
        """Return the words of c10/cuda/CUDACachingAllocator.cpp, as far as they tell of sizes."""
        return (
            f"CUDA out of memory. Tried to allocate {size / MIB:.2f} MiB. GPU {self.index} has a "
            f"total capacity of {self.total_bytes / GIB:.2f} GiB of which "
            f"{self.free_bytes() / MIB:.2f} MiB is free."
        )


DEVICES: list[DeviceMemory] = []
"""The memory of each device, by its index. `device.enter` fills the list."""


def set_devices(count: int, total_bytes: int) -> None:
    """Make so many devices of so many bytes each."""
    DEVICES[:] = [DeviceMemory(index, total_bytes, total_bytes) for index in range(count)]
