"""Another VAE of models.toml for one job."""

from __future__ import annotations

from typing import Any

import diffusers

from gpu_worker.pipeline.loading import machine_size
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext

NETWORKS = {name: getattr(diffusers, name) for name in ("AutoencoderKL", "AutoencoderTiny")}


def load(context: GenerationContext, name: str) -> Any:
    """The VAE, as sparing as the loaded one's.

    Raises:
        Unsupported: its latents are not those of the loaded model.
        ModelsError: models.toml does not know it, or it is none.
    """
    loaded = context.loaded
    own = getattr(loaded.pipe, "vae", None)
    if own is None:
        raise unsupported("vae", name, loaded.pipe, "has no VAE")
    vae = context.assets.network("vaes", name, NETWORKS, own.dtype)
    ours, theirs = own.config.latent_channels, vae.config.latent_channels
    if ours != theirs:
        why = f"has latents of {ours} channels, this VAE reads {theirs}"
        raise unsupported("vae", name, loaded.pipe, why)
    machine_size.enable_vae_savings(vae, loaded.size)
    return vae
