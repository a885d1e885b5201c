"""The libraries that have weights in fewer bits, one for each SDE_QUANTIZATION.

Imports none of them: it hides those that the setting does not ask for, and has the others quiet.
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
    """`module` is what Python imports, `package` what pip installs, `extra` ours that names it.

    `devices`: torch's words for those on which diffusers 0.42 has it quantise.
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
"""They tell of CUDA kernels that were not built and of casts; the last one of torchao's classes."""


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
    # diffusers means to drop quanto with its version 1.
    warnings.filterwarnings("ignore", message=r"\s*`Quanto", category=FutureWarning)


def _hide(module: str) -> None:
    """Make imports of the module fail: importlib reads None in sys.modules as missing."""
    for name in (module.partition(".")[0], module):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def _unhide(module: str) -> None:
    for name in (module.partition(".")[0], module):
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]
