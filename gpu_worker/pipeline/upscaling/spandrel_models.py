"""Loads ESRGAN-type upscalers from models.toml, which spandrel recognises by their weights.

It reads safetensors only. spandrel is optional (extra `upscale`), and torchvision is not needed.
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
    """Return a torch module that enlarges (1, 3, height, width), 0..1, `scale` times.

    Raises:
        ModelsError: no upscaler has this name, its file is not one, or spandrel is missing.
    """
    asset = library.part("upscalers", name)
    path = model_library.locate(folder, asset.source)
    if path is None or path.suffix != ".safetensors":
        raise ModelsError(f"upscalers.{name}: {asset.source} is not a .safetensors file")
    try:
        spandrel = import_spandrel()
    except ImportError as error:
        raise ModelsError(
            f"upscalers.{name}: {error.name} is not installed; "
            "pip install 'stable-diffusion-environment[upscale]'"
        ) from None
    try:
        with warnings.catch_warnings():
            # The transformer models among them use an outdated call of torch.
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            model = spandrel.ModelLoader().load_from_state_dict(load_file(path))
    except DEVICE_ERRORS:
        raise
    except Exception as error:  # damaged files and the many architectures raise many types
        message = " ".join(str(error).split())[:300] or "spandrel does not know its architecture"
        raise ModelsError(
            f"upscalers.{name}: {asset.source} is not an upscaler: {message}"
        ) from error
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise ModelsError(f"upscalers.{name}: {asset.source} needs more than an image")
    if (model.input_channels, model.output_channels) != (_RGB, _RGB):
        channels = f"maps {model.input_channels} channels to {model.output_channels}"
        raise ModelsError(f"upscalers.{name}: {asset.source} {channels}, not 3 to 3")
    return model


def import_spandrel() -> Any:
    """Return the spandrel library.

    Raises:
        ImportError: spandrel or a library that it needs is not installed.
    """
    if sys.modules.get("spandrel") is not None:
        return sys.modules["spandrel"]
    with _torchvision():
        return importlib.import_module("spandrel")


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """Provide stand-ins for the three names that spandrel imports from torchvision.

    Two of its 42 architectures use them: LaMa, which is rejected above, and RestoreFormer. The
    stand-ins make the other 40 work without torchvision, which needs an exact version of torch.
    """
    if importlib.util.find_spec(_TORCHVISION[0]) is not None:
        yield
        return
    stand_ins = {name: types.ModuleType(name) for name in _TORCHVISION}
    names = {
        "normalize": _raise_missing,
        "rotate": _raise_missing,
        "InterpolationMode": types.SimpleNamespace,
    }
    vars(stand_ins[_TORCHVISION[-1]]).update(names)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in _TORCHVISION:
            del sys.modules[name]


def _raise_missing(*_: object, **__: object) -> None:
    raise ModelsError("this upscaler needs torchvision, which is not installed")
