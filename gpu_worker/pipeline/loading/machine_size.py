"""Chooses what MACHINE_SIZE enables: dtype, slicing, tiling, offload and the default image size.

docs/operations.md lists what each costs.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from typing import Any, Literal

import torch

Size = Literal["big", "medium", "little", "tiny"]
Offload = Literal["none", "model", "sequential"]
SIZES: tuple[Size, ...] = ("big", "medium", "little", "tiny")

GIB = 1 << 30


@dataclass(frozen=True)
class Switches:
    """The memory savings of one MACHINE_SIZE.

    `max_default_side_px` limits the default image only, not a size that a request sets.
    `vae_tile_px` is the side of the tiles in which larger images are decoded. None disables tiles.
    """

    vae_slicing: bool
    vae_tile_px: int | None
    attention_slicing: bool
    offload: Offload
    max_default_side_px: int


SWITCHES: dict[Size, Switches] = {
    "big": Switches(False, None, False, "none", 1024),
    "medium": Switches(True, 768, False, "none", 1024),
    "little": Switches(True, 512, False, "model", 768),
    "tiny": Switches(True, 256, True, "sequential", 512),
}


def next_smaller(size: Size) -> Size | None:
    """Return the size to try after an out-of-memory error; None after tiny."""
    below = SIZES[SIZES.index(size) + 1 :]
    return below[0] if below else None


def choose_device(setting: str, gpu: int) -> torch.device:
    """Return the device for SDE_DEVICE; `auto` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        ValueError: this machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available() and gpu < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    name = next(kind for kind in available if available[kind]) if setting == "auto" else setting
    if not available[name]:
        names = ", ".join(kind for kind in available if available[kind])
        raise ValueError(
            f"SDE_DEVICE={setting} (GPU {gpu}): this machine has no such device; it has: {names}"
        )
    return torch.device(name, gpu) if name == "cuda" else torch.device(name)


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


def choose_dtype(device: torch.device) -> torch.dtype:
    """Return float16 for a GPU, and float32 for a CPU, where float16 is slower or missing."""
    return torch.float16 if device.type in ("cuda", "mps") else torch.float32


def apply(pipe: Any, size: Size, device: torch.device) -> None:
    """Enable the size's memory savings and move the diffusers pipeline to its device.

    A CPU skips offload, which needs another device. It also skips attention slicing, which there
    takes more memory than PyTorch's attention and half as long again.
    """
    switches = SWITCHES[size]
    enable_vae_savings(getattr(pipe, "vae", None), size)
    if switches.attention_slicing and device.type != "cpu":
        pipe.enable_attention_slicing("max")
    offload = offload_for(pipe, size)
    if offload == "none" or device.type == "cpu":
        pipe.to(device)
    elif offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_sequential_cpu_offload(device=device)


def offload_for(pipe: Any, size: Size) -> Offload:
    """Return the size's offload, but `model` for quanto weights instead of `sequential`.

    accelerate takes weights apart to offload them by layer, and cannot restore quanto's.
    """
    offload = SWITCHES[size].offload
    parts = (getattr(pipe, "unet", None), getattr(pipe, "transformer", None))
    quantizers: list[Any] = [getattr(part, "hf_quantizer", None) for part in parts]
    methods = [
        quantizer.quantization_config.quant_method
        for quantizer in quantizers
        if quantizer is not None
    ]
    return "model" if offload == "sequential" and "quanto" in methods else offload


def enable_vae_savings(vae: Any, size: Size) -> None:
    """Enable slicing and tiling where the VAE has them; `vae` may be None."""
    switches = SWITCHES[size]
    if switches.vae_slicing and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()
    if switches.vae_tile_px is None or not hasattr(vae, "enable_tiling"):
        return
    vae.enable_tiling()
    # The default tile is as large as the training images, which would not be tiled then.
    default_px, default_latents = (
        getattr(vae, f"tile_{of}_min_size", None) for of in ("sample", "latent")
    )
    if default_px and default_latents:
        vae.tile_sample_min_size = switches.vae_tile_px
        vae.tile_latent_min_size = switches.vae_tile_px * default_latents // default_px


def empty_cache(device: torch.device) -> None:
    """Return the memory that torch has cached to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free(device: torch.device) -> None:
    """Free the memory of an unloaded model.

    The garbage collection takes half a second, so this is not done for each job.
    """
    gc.collect()
    empty_cache(device)
