"""Loads another VAE from models.toml for one job."""

from __future__ import annotations

from typing import Any

import diffusers

from gpu_worker.pipeline.loading import machine_size
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext

NETWORKS = {name: getattr(diffusers, name) for name in ("AutoencoderKL", "AutoencoderTiny")}


def load(context: GenerationContext, name: str) -> Any:
    """Return the VAE, with the same memory savings as the loaded model's.

    Raises:
        Unsupported: its latents do not fit the loaded model.
        ModelsError: the name is not in models.toml, or is not a VAE.
    """
    loaded = context.loaded
    model_vae = getattr(loaded.pipe, "vae", None)
    if model_vae is None:
        raise unsupported("vae", name, loaded.pipe, "has no VAE")
    vae = context.assets.network("vaes", name, NETWORKS, model_vae.dtype)
    model_channels, vae_channels = model_vae.config.latent_channels, vae.config.latent_channels
    if model_channels != vae_channels:
        reason = f"has latents of {model_channels} channels, but this VAE reads {vae_channels}"
        raise unsupported("vae", name, loaded.pipe, reason)
    machine_size.enable_vae_savings(vae, loaded.size)
    return vae
