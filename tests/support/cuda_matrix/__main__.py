"""Runs one part of the matrix in this process and prints its lines.

The devices must be there before diffusers is imported, so the parts are imported last.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import warnings
from pathlib import Path

PARTS = {
    "device": ("device_rules", ()),
    "sd": ("features", ("sd",)),
    "xl": ("features", ("xl",)),
    "families": ("families", ()),
    "interruptions": ("interruptions", ()),
    "steps": ("steps", ()),
    "halves": ("halves", ()),
    "fitting": ("fitting", ()),
    "restoring": ("restoring", ()),
}
"""By name: the module of this package whose `run` prints the lines, and its arguments."""

HOST_BYTES = 64 << 30
"""The memory that every machine has for pinned weights, so that none changes a number."""


def main() -> None:
    """Run the part that the command line names, in a folder that may be filled."""
    part, folder = sys.argv[1], Path(sys.argv[2])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    from gpu_worker import quantization_libraries
    from tests.support.cuda import device

    quantization_libraries.hide_unused("none")
    device.enter()
    from gpu_worker import host_memory

    host_memory.available_bytes = lambda *_: HOST_BYTES
    module, arguments = PARTS[part]
    run = importlib.import_module(f"tests.support.cuda_matrix.{module}").run
    # Each unload ends with a collection, which need not look at the libraries.
    gc.collect()
    gc.freeze()
    run(folder, *arguments)


if __name__ == "__main__":
    main()
