"""Chooses what MACHINE_SIZE enables: slicing, tiling, offload and the default image size.

docs/operations.md lists what each costs.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gpu_worker.pipeline.execution import offload, wider_vae
from gpu_worker.pipeline.execution.offload import Offload
from gpu_worker.pipeline.families import family_of

Size = Literal["big", "medium", "little", "tiny"]
SIZES: tuple[Size, ...] = ("big", "medium", "little", "tiny")

GIB = 1 << 30

_TILE_STEP_PX = 32
"""The largest spatial compression of diffusers' image autoencoders (AutoencoderDC's)."""


@dataclass(frozen=True)
class Switches:
    """The memory savings of one MACHINE_SIZE.

    `max_default_side_px` limits the default image only, not a size that a request sets.
    `vae_tile_px` is the side of the tiles in which larger images are decoded. None disables tiles.
    """

    vae_slicing: bool
    vae_tile_px: int | None
    offload: Offload
    max_default_side_px: int


SWITCHES: dict[Size, Switches] = {
    "big": Switches(False, None, "none", 1024),
    "medium": Switches(True, 1024, "none", 1024),
    "little": Switches(True, 512, "model", 768),
    "tiny": Switches(True, 256, "layers", 512),
}


def memory_bytes(device: torch.device) -> int:
    """Return the device's memory in bytes; for cpu and mps the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def choose_size(memory: int) -> Size:
    """Return the size for this many bytes of memory.

    The limit is 22 GiB because a card sold as 24 GB reports a little less.
    """
    for size, minimum in (("big", 22 * GIB), ("medium", 11 * GIB), ("little", 7 * GIB)):
        if memory >= minimum:
            return size  # type: ignore[return-value]
    return "tiny"


def apply(pipe: Any, size: Size, device: torch.device) -> None:
    """Enable the size's memory savings and move the diffusers pipeline to its device."""
    enable_vae_savings(getattr(pipe, "vae", None), size)
    offload.enable(pipe, offload_for(pipe, size, device), device)


def offload_for(pipe: Any, size: Size, device: torch.device) -> Offload:
    """Return the size's offload for a pipeline on a device.

    A CPU and Apple's MPS compute in the machine's own memory, so they have no offload. Quantized
    weights move as whole models, except torchao's, which diffusers moves by layers. Of the others,
    and of some families, a layer's data alone does not restore the weight.
    """
    if device.type != "cuda":
        return "none"
    usual = SWITCHES[size].offload
    methods = {quantization_method(part) for part in pipe.components.values()}
    is_whole = family_of(pipe).whole_offload or bool(methods - {None, "torchao"})
    return "model" if usual == "layers" and is_whole else usual


def quantization_method(part: Any) -> str | None:
    """Return diffusers' name of a part's quantization: bitsandbytes, torchao, quanto or gguf."""
    quantizer = getattr(part, "hf_quantizer", None)
    return None if quantizer is None else str(quantizer.quantization_config.quant_method.value)


def next_smaller(pipe: Any, size: Size, device: torch.device) -> Size | None:
    """Return the next size that keeps less of a pipeline on the device; None if there is none.

    The tiles of a size are no reason to run a job again: `vae_calls` makes them smaller itself.
    """
    offload_now = offload_for(pipe, size, device)
    below = SIZES[SIZES.index(size) + 1 :]
    return next((each for each in below if offload_for(pipe, each, device) != offload_now), None)


def enable_vae_savings(vae: Any, size: Size) -> None:
    """Enable the slicing and tiling of a size where the VAE has them; `vae` may be None.

    What a smaller size has enabled before is undone.
    """
    if vae is None:
        return
    switches = SWITCHES[size]
    own = vars(vae).setdefault("_own_memory_settings", wider_vae.memory_settings(vae))
    vars(vae).update(own)
    if switches.vae_slicing and hasattr(vae, "use_slicing"):
        vae.enable_slicing()
    if switches.vae_tile_px is not None and hasattr(vae, "use_tiling"):
        set_tiles(vae, switches.vae_tile_px)


def set_tiles(vae: Any, side_px: int) -> None:
    """Make a VAE work in tiles of this side in pixels, or of its own side where it sets none.

    The default tile is as large as the training images, which would not be tiled then.
    """
    vae.enable_tiling()
    default_px, default_latents = (
        getattr(vae, f"tile_{of}_min_size", None) for of in ("sample", "latent")
    )
    if default_px and default_latents:
        vae.tile_sample_min_size = side_px
        vae.tile_latent_min_size = side_px * default_latents // default_px
    for side in ("height", "width"):  # of autoencoders with tiles that are not square
        minimum, stride = f"tile_sample_min_{side}", f"tile_sample_stride_{side}"
        if hasattr(vae, minimum) and hasattr(vae, stride):
            share = getattr(vae, stride) / getattr(vae, minimum)
            setattr(vae, minimum, side_px)
            setattr(vae, stride, int(side_px * share) // _TILE_STEP_PX * _TILE_STEP_PX)


def empty_cache(device: torch.device) -> None:
    """Return the memory that torch has cached to the device.

    It serves after an out-of-memory error and after an unload only: a job that ends well leaves
    the cache to the next one.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free(device: torch.device) -> None:
    """Free the memory of an unloaded model.

    The garbage collection takes half a second, so this is not done for each job.
    """
    gc.collect()
    empty_cache(device)
