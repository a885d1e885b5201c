"""Loads an ESRGAN or its kin of models.toml, which spandrel recognises by its weights.

safetensors only. spandrel is optional (extra `upscale`); torchvision is not needed beside it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import Library, ModelsError
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS

_RGB = 3

_TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def load(name: str, library: Library, folder: Path) -> Any:
    """A torch module that makes (1, 3, height, width), 0..1, `scale` times as large.

    Raises:
        ModelsError: no upscaler has this name, its file is no such model, or spandrel is missing.
    """
    part = library.part("upscalers", name)
    path = model_library.locate(folder, part.source)
    if path is None or path.suffix != ".safetensors":
        raise ModelsError(f"upscalers.{name}: {part.source} is no .safetensors file")
    try:
        spandrel = import_spandrel()
    except ImportError as error:
        raise ModelsError(
            f"upscalers.{name}: {error.name} is not installed; "
            "pip install 'stable-diffusion-environment[upscale]'"
        ) from None
    try:
        with warnings.catch_warnings():
            # The transformers among them call torch in a way that it means to change.
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            model = spandrel.ModelLoader().load_from_state_dict(load_file(path))
    except DEVICE_ERRORS:
        raise
    except Exception as error:  # damaged files and the many architectures fail in many ways
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelsError(f"upscalers.{name}: {part.source} is no upscaler: {said}") from error
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise ModelsError(f"upscalers.{name}: {part.source} needs more than a picture")
    if (model.input_channels, model.output_channels) != (_RGB, _RGB):
        ways = f"makes {model.output_channels} channels of {model.input_channels}"
        raise ModelsError(f"upscalers.{name}: {part.source} {ways}, and not three of three")
    return model


def import_spandrel() -> Any:
    """The library.

    Raises:
        ImportError: it, or what it needs, is not installed.
    """
    if sys.modules.get("spandrel") is not None:
        return sys.modules["spandrel"]
    with _torchvision():
        return importlib.import_module("spandrel")


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """Within, the three names that spandrel imports from torchvision can be had.

    Two of its 42 architectures use them: LaMa, which paints over masks and is refused above, and
    RestoreFormer. Without torchvision (which wants the very torch that it was built with) stand-ins
    let the other 40 be used.
    """
    if importlib.util.find_spec(_TORCHVISION[0]) is not None:
        yield
        return
    stand_ins = {name: types.ModuleType(name) for name in _TORCHVISION}
    names = {"normalize": _lacking, "rotate": _lacking, "InterpolationMode": types.SimpleNamespace}
    vars(stand_ins[_TORCHVISION[-1]]).update(names)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in _TORCHVISION:
            del sys.modules[name]


def _lacking(*_: object, **__: object) -> None:
    raise ModelsError("this upscaler needs torchvision, which is not installed")
