"""Lists the libraries for quantized weights, one for each SDE_QUANTIZATION.

It imports none of them. It hides the unused ones and silences the others.
"""

from __future__ import annotations

import logging
import sys
import warnings
from dataclasses import dataclass
from typing import Literal

Quantization = Literal[
    "none", "bitsandbytes-8bit", "bitsandbytes-4bit", "torchao-int8", "quanto-int8"
]


@dataclass(frozen=True)
class QuantizationLibrary:
    """The module to import, the package to install, and the extra of this project for it.

    `devices` are the torch devices on which diffusers 0.42 supports it.
    """

    module: str
    package: str
    extra: str
    devices: tuple[str, ...]


LIBRARIES: dict[str, QuantizationLibrary] = {
    "bitsandbytes-8bit": QuantizationLibrary(
        "bitsandbytes", "bitsandbytes", "bitsandbytes", ("cuda",)
    ),
    "bitsandbytes-4bit": QuantizationLibrary(
        "bitsandbytes", "bitsandbytes", "bitsandbytes", ("cuda", "mps")
    ),
    "torchao-int8": QuantizationLibrary("torchao", "torchao", "torchao", ("cpu", "cuda", "mps")),
    "quanto-int8": QuantizationLibrary(
        "optimum.quanto", "optimum-quanto", "quanto", ("cpu", "cuda", "mps")
    ),
}

_LOGGERS = ("torchao", "bitsandbytes", "torch.utils._pytree")
"""They warn about missing CUDA kernels, casts and torchao's classes."""


def hide_unused(quantization: Quantization) -> None:
    """Hide the libraries that the setting does not use, before diffusers is imported.

    diffusers, transformers and peft import each of them that is installed. This costs a second at
    the start and prints warnings about libraries that nobody uses.
    """
    for name, library in LIBRARIES.items():
        if name == quantization:
            _unhide(library.module)
        elif quantization == "none" or library.module != LIBRARIES[quantization].module:
            _hide(library.module)
    if quantization == "none":
        return
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # diffusers warns that its version 1 will drop quanto.
    warnings.filterwarnings("ignore", message=r"\s*`Quanto", category=FutureWarning)


def _hide(module: str) -> None:
    """Make imports of the module fail: importlib reads None in sys.modules as missing."""
    for name in (module.partition(".")[0], module):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def _unhide(module: str) -> None:
    for name in (module.partition(".")[0], module):
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]
