"""Makes a VAE's encode and decode safe: other dtypes, overflow, and too little memory.

diffusers calls a VAE with tensors of the denoiser's dtype. A VAE may keep another one.
"""

from __future__ import annotations

import functools
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch

from gpu_worker.pipeline.execution import machine_size, wider_vae
from gpu_worker.pipeline.execution.device_errors import is_out_of_memory
from gpu_worker.pipeline.execution.fit import FORGET_S

log = logging.getLogger(__name__)

METHODS = ("encode", "decode")

_SMALLER_TILES_PX = (768, 512, 256, 128)
"""Sides of the tiles that follow each other where the memory is too small, in pixels."""


class SafeVae:
    """The calls of one VAE, and what they needed.

    `dtype` is the wider dtype that a call needed, and `tile_px` the side of the tiles.
    """

    def __init__(self, vae: Any, clock: Callable[[], float] = time.monotonic) -> None:
        # A reference cycle would keep the weights on the device until a collection.
        self._reference = weakref.ref(vae)
        self._clock = clock
        self._needs: dict[tuple[str, int], tuple[int, float]] = {}
        """The side that a method needed for an area of pixels or latents, and the time of it."""
        self.dtype: str | None = None
        self.tile_px: int | None = None

    @property
    def _vae(self) -> Any:
        return self._reference()

    def begin(self) -> None:
        """Forget what earlier calls needed."""
        self.dtype = self.tile_px = None

    @property
    def report(self) -> dict[str, Any]:
        """Return the record's fields on what the calls needed beyond MACHINE_SIZE."""
        needed = {"vae_dtype": self.dtype, "vae_tile_px": self.tile_px}
        return {name: value for name, value in needed.items() if value is not None}

    def call(self, method: str, value: torch.Tensor, *inputs: Any, **named: Any) -> Any:
        """Return what the VAE's own method gives, in the dtype of `value`.

        Args:
            value: pixels (n, 3, h, w) of `encode`, or latents (n, c, h, w) of `decode`.

        Raises:
            torch.OutOfMemoryError: even the smallest tiles do not fit.
        """
        area = int(value.shape[-1] * value.shape[-2])
        side = self._needed_side(method, area)
        while True:
            try:
                return self._with_tiles(side, method, value, *inputs, **named)
            except Exception as error:
                smaller = self._smaller(side, _image_side_px(self._vae, method, value))
                if smaller is None or not is_out_of_memory(error):
                    raise
            # The error held the tensors of the failed call; they are free only here.
            machine_size.empty_cache(value.device)
            log.warning("the VAE does not fit; it runs in tiles of %d px", smaller)
            side = smaller
            self._needs[method, area] = smaller, self._clock()

    def _needed_side(self, method: str, area: int) -> int | None:
        """Return the side of tiles that as large a call needed lately.

        It is None where the VAE's own tiles suffice. What another program took may be free again,
        so a need is forgotten after a while.
        """
        now, own = self._clock(), _side_px(self._vae)
        self._needs = {key: need for key, need in self._needs.items() if now - need[1] < FORGET_S}
        calls = self._needs.items()
        sides = [side for (of, least), (side, _) in calls if of == method and least <= area]
        return min((side for side in sides if own is None or side < own), default=None)

    def _smaller(self, side_px: int | None, image_px: int | None) -> int | None:
        """Return the next side of tiles that are smaller than the image.

        It is None where there is none, or the VAE has no tiles.
        """
        # Every autoencoder has enable_tiling, and raises it where it has no tiles.
        if not hasattr(self._vae, "use_tiling"):
            return None
        side_px = _side_px(self._vae) if side_px is None else side_px
        limits = [limit for limit in (side_px, image_px) if limit is not None]
        return next((each for each in _SMALLER_TILES_PX if all(each < px for px in limits)), None)

    def _with_tiles(self, side_px: int | None, *call: Any, **named: Any) -> Any:
        if side_px is None:
            return self._in_fitting_dtype(*call, **named)
        before = wider_vae.memory_settings(self._vae)
        machine_size.set_tiles(self._vae, side_px)
        try:
            output = self._in_fitting_dtype(*call, **named)
        finally:
            vars(self._vae).update(before)
        self.tile_px = side_px
        return output

    def _in_fitting_dtype(
        self, method: str, value: torch.Tensor, *inputs: Any, **named: Any
    ) -> Any:
        own = functools.partial(getattr(type(self._vae), method), self._vae)
        tensor = value.to(self._vae.dtype) if value.is_floating_point() else value
        output = own(tensor, *inputs, **named)
        if wider_vae.is_worth_a_retry(tensor, output):
            output = wider_vae.run(self._vae, method, tensor, *inputs, **named)
            self.dtype = wider_vae.NAME
        # Pixels may stay wide: the image processor converts them anyway.
        return wider_vae.cast(output, value.dtype) if method == "encode" else output


def install(vae: Any) -> None:
    """Make the calls of a VAE safe. A second time has no effect, and neither has another part.

    It also keeps its dtype from now on: SDXL's pipelines would convert a VAE with `force_upcast` in
    each call, and back only if the call succeeds.
    """
    if getattr(getattr(vae, "config", None), "force_upcast", False):
        vae.register_to_config(force_upcast=False)
    if isinstance(vae, torch.nn.Module) and _has_calls(vae) and of(vae) is None:
        safe = SafeVae(vae)
        vae.__dict__["_safe"] = safe
        for method in METHODS:
            own = getattr(type(vae), method)
            vae.__dict__[method] = functools.wraps(own)(functools.partial(safe.call, method))


def of(vae: Any) -> SafeVae | None:
    """Return the calls of a VAE; None where they were not made safe."""
    return getattr(vae, "__dict__", {}).get("_safe")


def install_all(pipe: Any) -> None:
    """Make the calls of every VAE of a pipeline safe."""
    for part in pipe.components.values():
        install(part)


def _has_calls(part: Any) -> bool:
    return all(hasattr(part, method) for method in METHODS)


def _image_side_px(vae: Any, method: str, value: torch.Tensor) -> int | None:
    """Return the longer side of a call's image in pixels; None where the VAE's scale is unknown.

    Args:
        value: pixels of `encode`, or latents of `decode`.
    """
    side = max(value.shape[-2:])
    if method == "encode":
        return side
    scale = getattr(vae, "spatial_compression_ratio", None)
    if scale is None and getattr(vae, "tile_latent_min_size", None):
        scale = vae.tile_sample_min_size / vae.tile_latent_min_size
    return None if scale is None else int(side * scale)


def _side_px(vae: Any) -> int | None:
    """Return the side of the tiles that MACHINE_SIZE set, in pixels; None without tiles."""
    if not getattr(vae, "use_tiling", False):
        return None
    names = ("tile_sample_min_size", "tile_sample_min_height")
    return next((int(side) for name in names if (side := getattr(vae, name, None))), None)
