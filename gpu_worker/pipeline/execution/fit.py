"""Chooses the MACHINE_SIZE that a model fits, and remembers what did not fit.

The estimates are rough. An out-of-memory error corrects them while the worker runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gpu_worker.contract.field_types import LANCZOS, LATENT
from gpu_worker.contract.fields.request_walk import assets_of
from gpu_worker.contract.output_size import hires_size
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline import families
from gpu_worker.pipeline.execution import machine_size, offload
from gpu_worker.pipeline.execution.device_errors import is_out_of_memory
from gpu_worker.pipeline.execution.machine_size import SIZES, SWITCHES, Size
from gpu_worker.pipeline_api import OutOfMemory

log = logging.getLogger(__name__)

FORGET_S = 900.0
"""How long a need counts, in seconds: a job that never fits is tried four times an hour."""

CONTEXT_BYTES = 512 << 20
"""What the CUDA context and cuBLAS take beside torch's own allocations, in bytes.

It is an estimate: NVIDIA publishes no number, and it differs by GPU and driver.
"""

_UNET_TENSORS = 60
"""How many tensors of its first layer's output a UNet's step holds at once.

It reproduces what is reported of a step in float16: 0.3 GB of SD 1.5 at 512 px, and 1.3 GB of SDXL
at 1024 px, with room for the workspaces of cuDNN.
"""

_TRANSFORMER_TENSORS = 20
"""How many tensors of a transformer's width a step holds at once. It is an estimate."""

_DECODE_TENSORS = 4
"""How many tensors of its second level's width, at the image's size, a decode holds at once.

It reproduces the 2 GB that are reported of a decode of SDXL at 1024 px in float16.
"""

_NETWORK_KINDS = frozenset({"controlnets", "ip_adapters", "refiners", "upscalers"})
"""Kinds of models.toml whose weights are on the device beside those of the model."""

_CUDA = torch.device("cuda")


class TooLarge(OutOfMemory):
    """A job did not fit. `smaller` is the MACHINE_SIZE at which it may."""

    def __init__(self, message: str, smaller: Size) -> None:
        super().__init__(message)
        self.smaller = smaller


@dataclass(frozen=True)
class Demand:
    """What a job demands of the memory beside the model's weights.

    `pixels` are those of its largest image. `networks` are its further networks, by kind and name.
    """

    pixels: int = 0
    networks: frozenset[str] = frozenset()

    @classmethod
    def of_request(cls, request: GenerationRequest, size: tuple[int, int], multiple: int) -> Demand:
        """Return the demand of a request.

        Args:
            size: the width and height of its first pass, in pixels.
            multiple: what the model's sides are a multiple of, in pixels.
        """
        if request.hires is not None:
            size = hires_size(size, request.hires.scale, multiple)
        networks = {
            f"{kind}/{name}"
            for kind, _, name in assets_of(request)
            if kind in _NETWORK_KINDS and name not in (LANCZOS, LATENT)
        }
        return cls(size[0] * size[1], frozenset(networks))

    def includes(self, other: Demand) -> bool:
        """Return whether this demand is at least the other one."""
        return self.pixels >= other.pixels and self.networks >= other.networks


@dataclass(frozen=True)
class _Need:
    """The size that a demand needed at that time."""

    demand: Demand
    size: Size
    time_s: float


class Fits:
    """The sizes at which the models of one worker turned out to fit."""

    def __init__(
        self,
        base: Size,
        device: torch.device,
        is_fixed: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.base = base
        """The size for default images, from MACHINE_SIZE or from the device's memory."""
        self._device = device
        self._is_fixed = is_fixed
        self._needs: dict[str, list[_Need]] = {}
        self._initial: dict[str, Size] = {}

    def first(self, name: str, pipe: Any, side_px: int) -> Size:
        """Return the size at which to place a model that has just been loaded.

        Args:
            side_px: the side of the model's own images in pixels.
        """
        is_estimated = not self._is_fixed and self._device.type == "cuda"
        self._initial[name] = self._estimate(name, pipe, side_px) if is_estimated else self.base
        return self.of_job(name, Demand(side_px * side_px))

    def correct(self, name: str, size: Size) -> None:
        """Remember the size at which a model was placed, where the first one did not fit."""
        self._initial[name] = size

    def _estimate(self, name: str, pipe: Any, side_px: int) -> Size:
        """Return the largest size whose needs are free on the device, or there already."""
        free = free_bytes(self._device) + offload.resident_bytes(pipe, self._device)
        candidates = SIZES[SIZES.index(self.base) :]
        need = {size: needed_bytes(pipe, size, side_px) for size in candidates}
        size = next((each for each in candidates if need[each] <= free), candidates[-1])
        if size != self.base:
            message = "%s needs about %.1f GiB with MACHINE_SIZE=%s and %.1f are free: it gets %s"
            shares = need[self.base] / machine_size.GIB, free / machine_size.GIB
            log.warning(message, name, shares[0], self.base, shares[1], size)
        return size

    def of_job(self, name: str, demand: Demand) -> Size:
        """Return the size for a job: the one at which its model was first placed, or a smaller one.

        What another program took may be free again, so a need is forgotten after a while.
        """
        now = self._clock()
        needs = [need for need in self._needs.get(name, []) if now - need.time_s < FORGET_S]
        self._needs[name] = needs
        sizes = [need.size for need in needs if demand.includes(need.demand)]
        return max([self._initial.get(name, self.base), *sizes], key=SIZES.index)

    def note(self, name: str, demand: Demand, size: Size) -> None:
        """Remember that a model needs this smaller size for such a demand."""
        self._needs.setdefault(name, []).append(_Need(demand, size, self._clock()))

    def place(self, name: str, pipe: Any, size: Size) -> Size:
        """Move a pipeline to the device at the largest size that fits, and return that size.

        Raises:
            Exception: the device's own error, where no size fits or memory is not the reason.
        """
        while True:
            try:
                machine_size.apply(pipe, size, self._device)
                return size
            except Exception as error:
                smaller = machine_size.next_smaller(pipe, size, self._device)
                if smaller is None or not is_out_of_memory(error):
                    raise
            offload.disable(pipe)
            machine_size.free(self._device)
            self.note_placement(name, smaller)
            size = smaller

    def note_placement(self, name: str, size: Size) -> None:
        """Remember that a model's weights alone need this smaller size, so each job does."""
        log.warning("%s does not fit; it is placed with MACHINE_SIZE=%s", name, size)
        self.note(name, Demand(), size)

    def shortage(
        self, name: str, pipe: Any, size: Size, demand: Demand, message: str
    ) -> OutOfMemory:
        """Return the error for a job that did not fit, and remember its demand.

        It is TooLarge where a smaller size keeps less of the model on the device.
        """
        smaller = machine_size.next_smaller(pipe, size, self._device)
        if smaller is None:
            return OutOfMemory(message)
        self.note(name, demand, smaller)
        return TooLarge(message, smaller)


def free_bytes(device: torch.device) -> int:
    """Return the bytes of a CUDA device that torch can still allocate."""
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(0, int(free) + cached - CONTEXT_BYTES)


def needed_bytes(pipe: Any, size: Size, side_px: int) -> int:
    """Return about how many bytes of the device a pipeline needs for images of this side."""
    parts = [offload.weight_bytes(module) for module in offload.modules(pipe)]
    tile = SWITCHES[size].vae_tile_px
    work = max(_step_bytes(pipe, side_px), _decode_bytes(pipe, min(side_px, tile or side_px)))
    resident = {"none": sum(parts), "model": max(parts, default=0), "layers": 0}
    return resident[machine_size.offload_for(pipe, size, _CUDA)] + work


def _step_bytes(pipe: Any, side_px: int) -> int:
    """Return the bytes of a step beside the weights, for guidance with two predictions."""
    denoiser = families.denoiser_of(pipe)
    if denoiser is None:
        return 0
    config = denoiser.config
    latent_px = (side_px // int(getattr(pipe, "vae_scale_factor", 8))) ** 2
    item_bytes = int(denoiser.dtype.itemsize)
    if widths := config.get("block_out_channels"):
        return 2 * _UNET_TENSORS * latent_px * _first(widths) * item_bytes
    heads = config.get("num_attention_heads"), config.get("attention_head_dim")
    if not all(isinstance(each, int) for each in heads):
        return 0
    tokens = latent_px // _patch_side(config) ** 2 // _packing(pipe, config)
    return 2 * _TRANSFORMER_TENSORS * tokens * heads[0] * heads[1] * item_bytes


def _first(value: Any) -> int:
    """Return the first number of a list, or the number itself; configurations have both."""
    return int(value[0] if isinstance(value, list | tuple) else value)


def _patch_side(config: Any) -> int:
    """Return the latent pixels a side that a transformer takes as one token."""
    side = config.get("patch_size") or 1
    return int(side[-1] if isinstance(side, list | tuple) else side)


def _packing(pipe: Any, config: Any) -> int:
    """Return how many latent pixels a pipeline packs into one token, as Flux's do."""
    channels = (
        config.get("in_channels"),
        getattr(getattr(getattr(pipe, "vae", None), "config", None), "latent_channels", None),
    )
    return max(1, channels[0] // channels[1]) if all(channels) else 1


def _decode_bytes(pipe: Any, side_px: int) -> int:
    """Return the bytes of a decode beside the weights."""
    vae: Any = getattr(pipe, "vae", None)
    widths = getattr(vae, "config", {}).get("block_out_channels")
    if not isinstance(widths, list | tuple) or not widths:
        return 0
    widest = int(widths[min(1, len(widths) - 1)])
    return _DECODE_TENSORS * side_px**2 * widest * int(vae.dtype.itemsize)
