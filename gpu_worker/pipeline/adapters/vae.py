"""Another VAE of models.toml for one job."""

from __future__ import annotations

from typing import Any

import diffusers

from gpu_worker.pipeline.loading import machine_size
from gpu_worker.pipeline.loading.asset_files import AssetFiles
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, NotSupported

NETWORKS = {name: getattr(diffusers, name) for name in ("AutoencoderKL", "AutoencoderTiny")}


def load(loaded: LoadedModel, name: str, shelf: AssetFiles) -> Any:
    """The VAE, as sparing as the loaded one's.

    Raises:
        NotSupported: its latents are not those of the loaded model.
        ModelsError: models.toml does not know it, or it is none.
    """
    own = getattr(loaded.pipe, "vae", None)
    if own is None:
        raise NotSupported("vae", name, loaded.pipe, "has no VAE")
    vae = shelf.network("vaes", name, NETWORKS, own.dtype)
    ours, theirs = own.config.latent_channels, vae.config.latent_channels
    if ours != theirs:
        why = f"has latents of {ours} channels, this VAE reads {theirs}"
        raise NotSupported("vae", name, loaded.pipe, why)
    machine_size.enable_vae_savings(vae, loaded.size)
    return vae
