"""Begins each noun's word vector with what the noun looks like.

Principal components of the encoded sprites tell the UNet from its first step which nouns resemble
each other. It learns to decode such a code sooner than it learns hundreds of unrelated words.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from recipe.images.compose import Composer
from recipe.images.nouns import nouns
from recipe.images.scenes import Scene
from recipe.images.sprites import STYLES
from recipe.model import networks
from recipe.training.vae import to_unit

_SPREAD = 0.04
"""Twice the spread that CLIP's other vectors begin with."""


@torch.no_grad()
def looks(vae: AutoencoderKL, composer: Composer) -> torch.Tensor:
    """One row for each noun: its latents on white, the mean over all styles."""
    device = next(vae.parameters()).device
    rows = []
    for style in STYLES:
        scenes = [Scene((noun,), style, size="large") for noun in nouns()]
        images = to_unit([composer.draw(scene, random.Random(0)) for scene in scenes])
        parts = [vae.encode(part.to(device)).latent_dist.mode() for part in images.split(32)]
        rows.append(torch.cat(parts).flatten(1).float().cpu())
    return torch.stack(rows).mean(dim=0)


def noun_codes(rows: torch.Tensor, width: int) -> torch.Tensor:
    """The rows' first principal components (nouns, width), the later ones raised a little."""
    u, values, _ = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    count = min(width, len(values))
    codes = torch.zeros(len(rows), width)
    codes[:, :count] = u[:, :count] * values[:count].sqrt()
    return codes / codes.std() * _SPREAD


def load(state: Path, vae: AutoencoderKL, composer: Composer) -> torch.Tensor:
    """The codes of an earlier run in the folder, or new ones, which it then holds."""
    cache = state / "codes.pt"
    if not cache.exists():
        rows = looks(vae, composer)
        torch.save(noun_codes(rows, networks.TEXT_WIDTH), cache)
    codes: torch.Tensor = torch.load(cache, weights_only=True)
    return codes


@torch.no_grad()
def begin_with_looks(
    embedding: torch.nn.Embedding, tokenizer: CLIPTokenizer, codes: torch.Tensor
) -> None:
    """Set the vector of each noun's first word to its code."""
    for noun, code in zip(nouns(), codes, strict=True):
        embedding.weight[tokenizer(noun).input_ids[1]] = code
