"""What MACHINE_SIZE switches on: dtype, slicing, tiling, offload and the largest default picture.

Beside pipeline.py the only module that imports torch. docs/operations.md says what each costs.
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
    """`max_default_side_px` bounds the default picture only: a size asked for is made.

    `vae_tile_px` is the side of the tiles in which a larger picture is decoded; None: in one piece.
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
    """The size to try after an out-of-memory, or None below tiny."""
    below = SIZES[SIZES.index(size) + 1 :]
    return below[0] if below else None


def choose_device(asked: str, gpu: int) -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ValueError: the device asked for is not here.
    """
    found = {
        "cuda": torch.cuda.is_available() and gpu < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    name = next(kind for kind in found if found[kind]) if asked == "auto" else asked
    if not found[name]:
        here = ", ".join(kind for kind in found if found[kind])
        raise ValueError(f"SDE_DEVICE={asked} (GPU {gpu}) is not on this machine; here are: {here}")
    return torch.device(name, gpu) if name == "cuda" else torch.device(name)


def memory_bytes(device: torch.device) -> int:
    """Memory of the device in bytes; for cpu and mps that of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def choose_size(memory: int) -> Size:
    """The size for so many bytes; a card sold as 24 GB reports a little less, hence 22."""
    for size, least in (("big", 22 * GIB), ("medium", 11 * GIB), ("little", 7 * GIB)):
        if memory >= least:
            return size  # type: ignore[return-value]
    return "tiny"


def choose_dtype(device: torch.device) -> torch.dtype:
    """Half precision on a GPU; float32 on a CPU, where half is slower or missing."""
    return torch.float16 if device.type in ("cuda", "mps") else torch.float32


def apply(pipe: Any, size: Size, device: torch.device) -> None:
    """Switch the size's savings on and put the diffusers pipeline on its device.

    Offload needs a device to offload from, so a CPU leaves it out; and attention slicing, which
    takes more memory there than PyTorch's own attention does, and half as long again.
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
    """The size's own, but whole models where quanto has quantised: accelerate takes each weight
    apart to offload layer by layer, and cannot put quanto's together again."""
    offload = SWITCHES[size].offload
    parts = (getattr(pipe, "unet", None), getattr(pipe, "transformer", None))
    quantizers: list[Any] = [getattr(part, "hf_quantizer", None) for part in parts]
    methods = [each.quantization_config.quant_method for each in quantizers if each is not None]
    return "model" if offload == "sequential" and "quanto" in methods else offload


def enable_vae_savings(vae: Any, size: Size) -> None:
    """Switch slicing and tiling on, where this VAE knows them; None knows none."""
    switches = SWITCHES[size]
    if switches.vae_slicing and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()
    if switches.vae_tile_px is None or not hasattr(vae, "enable_tiling"):
        return
    vae.enable_tiling()
    # Its own tile is as large as the pictures that it was trained on: they would stay in one piece.
    own_px, own_latents = (getattr(vae, f"tile_{of}_min_size", None) for of in ("sample", "latent"))
    if own_px and own_latents:
        vae.tile_sample_min_size = switches.vae_tile_px
        vae.tile_latent_min_size = switches.vae_tile_px * own_latents // own_px


def empty_cache(device: torch.device) -> None:
    """Give what torch keeps of the device's memory back to it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free(device: torch.device) -> None:
    """After a model was let go of. Finding its cycles takes half a second: not for each job."""
    gc.collect()
    empty_cache(device)
