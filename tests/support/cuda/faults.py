"""Errors on purpose: a hook before every operation on a device, and the device that is lost.

A lost device raises the same error in every later call, as CUDA's sticky errors do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

Hook = Callable[[str], None]
"""Is called with the name of each operation, `aten::mm` or `cuda::empty_cache`, and may raise."""

ILLEGAL_ADDRESS = 700
"""cudaErrorIllegalAddress (driver_types.h), after which a process has no device any more."""


def accelerator_error(code: int, message: str) -> torch.AcceleratorError:
    """Return the error of torch's C++ for a CUDA error code (c10/cuda/CUDAException.cpp)."""
    error = torch.AcceleratorError(f"CUDA error: {message}")
    error.error_code = code
    return error


@dataclass
class Faults:
    """What goes wrong in this process."""

    hook: Hook | None = None
    _lost: tuple[int, str] | None = None

    def check(self, operation: str) -> None:
        """Raise what is to be raised before this operation.

        Raises:
            torch.AcceleratorError: the device is lost.
        """
        if self._lost is not None:
            raise accelerator_error(*self._lost)
        if self.hook is not None:
            self.hook(operation)

    def lose_device(
        self,
        code: int = ILLEGAL_ADDRESS,
        message: str = "an illegal memory access was encountered",
    ) -> None:
        """Make this and every later call of CUDA raise torch.AcceleratorError with this code."""
        self._lost = code, message

    def raise_at(self, pattern: str, error: BaseException | None, *, count: int = 1) -> None:
        """Raise once, before the `count`th operation whose name matches the pattern.

        Args:
            error: what is raised; None loses the device instead.
        """
        remaining, pending = count, error
        del error

        def hook(operation: str) -> None:
            nonlocal remaining, pending
            remaining -= 1 if re.search(pattern, operation) else 0
            if remaining:
                return
            self.hook = None
            if pending is None:
                self.lose_device()
                self.check(operation)
                return
            # The error must not be in a circle with this frame, or it holds its job's tensors.
            now, pending = pending, None
            try:
                raise now
            finally:
                del now

        self.hook = hook

    def clear(self) -> None:
        """Mend everything, which a real device cannot."""
        self.hook = self._lost = None


FAULTS = Faults()
