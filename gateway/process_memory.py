"""Makes glibc give memory back that large bodies and images took. Elsewhere it does nothing."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # mallopt(3), <malloc.h>

MMAP_THRESHOLD_BYTES = 256 << 10
"""A larger allocation is a mapping of its own, which is unmapped when it is freed. glibc would
raise the threshold to 32 MiB, and such memory would stay in the process."""

ARENAS = 2
"""glibc's default is eight for each core, and each keeps what was freed in it."""


def return_freed_memory() -> None:
    """Set up the allocator. It must be called before threads start."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_ARENA_MAX, ARENAS)
    mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
