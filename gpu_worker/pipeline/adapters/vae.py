"""Loads another VAE from models.toml for one job."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np

from gpu_worker.pipeline.execution import machine_size, vae_calls
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading.loaded_model import unsupported

NETWORKS = {name: getattr(diffusers, name) for name in ("AutoencoderKL", "AutoencoderTiny")}


_SCALES = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
"""The values of a configuration that say how latents are scaled. No tensor shows them."""


def load(context: GenerationContext, name: str) -> Any:
    """Return the VAE, with the same memory savings as the loaded model's.

    A single file without its own configuration has that of the loaded model's VAE.

    Raises:
        Unsupported: its latents do not fit the loaded model.
        ModelsError: the name is not in models.toml, or is not a VAE.
    """
    loaded = context.loaded
    model_vae = getattr(loaded.pipe, "vae", None)
    if model_vae is None:
        raise unsupported("vae", name, loaded.pipe, "has no VAE")
    vae = context.assets.network("vaes", name, NETWORKS, model_vae.dtype, like=model_vae)
    model_channels, vae_channels = model_vae.config.latent_channels, vae.config.latent_channels
    if model_channels != vae_channels:
        reason = f"has latents of {model_channels} channels, but this VAE reads {vae_channels}"
        raise unsupported("vae", name, loaded.pipe, reason)
    _check_scales(loaded.pipe, name, model_vae, vae)
    machine_size.enable_vae_savings(vae, loaded.placement)
    vae_calls.install(vae)
    return vae


def _check_scales(pipe: Any, name: str, model_vae: Any, vae: Any) -> None:
    """Check that both VAEs scale latents alike. Those of another class scale by themselves."""
    if type(vae) is not type(model_vae):
        return
    for scale in _SCALES:
        model_value, own_value = (each.config.get(scale) for each in (model_vae, vae))
        if not _equal(model_value, own_value):
            reason = f"has latents with {scale} {model_value}, but this VAE's {scale} is"
            raise unsupported("vae", name, pipe, f"{reason} {own_value}")


def _equal(first: Any, second: Any) -> bool:
    """Return whether two values of a configuration are the same: None, numbers, or lists."""
    if first is None or second is None:
        return first is second
    return bool(np.shape(first) == np.shape(second) and np.allclose(first, second, rtol=1e-4))
