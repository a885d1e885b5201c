"""Trains the autoencoder alone, measures it, and gives its latents a spread of one."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.nn import functional

from recipe.images import scenes, sprites
from recipe.images.compose import PIXELS, Composer
from recipe.model import networks
from recipe.training import pace, replicas
from recipe.training.precision import mixed
from recipe.training.replicas import Replica

_CROPS, _CROP_PIXELS, _CROP_SHARE = 8, 48, 0.6
"""Crops in a replica's batch while small parts teach edges, and the share of the time for them."""

_BATCH = 3
"""Whole images in a replica's batch afterwards."""

_PEAK_RATE = 2e-3
_KL_WEIGHT = 3e-5
_EDGE_WEIGHT = 0.5
_SQUARE_WEIGHT = 4.0
_EMA_DECAY = 0.995
_PAIR_SHARE = 0.5
_SAVE_EVERY_S = 180.0
HELD_OUT_IMAGES = 256


@dataclass(frozen=True)
class VaePlan:
    """Where the run lives, how long it lasts, and whose weights it begins with."""

    state: Path
    minutes: float
    start: Path | None = None
    seed: int = 1


def to_unit(images: list[Image.Image]) -> torch.Tensor:
    """Images to (n, 3, 96, 96) in -1..1, channels last in memory."""
    raw = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return (raw.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(
        memory_format=torch.channels_last
    )


def loss_of(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """L1 and squares on pixels, L1 on their differences (sharp edges), and a little KL."""
    posterior = vae.encode(images).latent_dist
    again = vae.decode(posterior.sample()).sample.float()
    loss = functional.l1_loss(again, images)
    loss = loss + _SQUARE_WEIGHT * functional.mse_loss(again, images)
    for axis in (2, 3):
        edges = functional.l1_loss(again.diff(dim=axis), images.diff(dim=axis))
        loss = loss + _EDGE_WEIGHT * edges
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return loss + _KL_WEIGHT * 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """The images after the way through the latents."""
    parts = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in images.split(16)]
    return torch.cat(parts).clamp(-1, 1)


def held_out_images(composer: Composer, count: int) -> torch.Tensor:
    """Images of scenes that no training sees."""
    rng = random.Random(77)
    examples = [scenes.random_scene(rng, from_held_out=True) for _ in range(count)]
    return to_unit([composer.draw(scene, rng) for scene in examples])


def psnr(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """Decibels of the mean squared error over all images, peak 2 (-1..1)."""
    error = functional.mse_loss(reconstruct(vae, images), images)
    return float(10 * torch.log10(4 / error))


def write_sheet(vae: AutoencoderKL, images: torch.Tensor, path: Path) -> None:
    """Rows of true images, each above what the autoencoder makes of it."""
    both = torch.cat([images, reconstruct(vae, images)]).add(1).mul(127.5)
    raw = both.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    rows = [
        np.concatenate(list(half), axis=1) for half in (raw[: len(images)], raw[-len(images) :])
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


@torch.no_grad()
def whiten(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Shift and scale each latent channel to mean 0 and spread 1, inside the 1x1 convolutions.

    The pipeline knows only one factor for all channels; so the autoencoder itself does it.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in images.split(16)])
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    count = len(mean)
    before, after = vae.quant_conv, vae.post_quant_conv
    before.bias[:count] = (before.bias[:count] - mean) / spread
    before.weight[:count] /= spread[:, None, None, None]
    before.bias[count:] -= 2 * spread.log()
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= spread[None, :, None, None]


def _crop(images: torch.Tensor, side: int) -> torch.Tensor:
    """One part of each image at the same random place, near the middle more often."""
    left, top = (int(torch.rand(2).mean() * (PIXELS - side)) for _ in range(2))
    return images[:, :, top : top + side, left : left + side]


class VaeRun:
    """The stage in one replica: what it draws, how it learns, and the checkpoint."""

    def __init__(self, replica: Replica, plan: VaePlan, composer: Composer) -> None:
        self.replica, self.plan, self.shared = replica, plan, replica.shared
        self.vae = self.shared.network
        self.clock = pace.Clock(plan.minutes, float(self.shared.progress[1]))
        seed = plan.seed + self.shared.steps + 7919 * replica.rank
        torch.manual_seed(seed)
        self.rng = random.Random(seed)
        self.composer = composer

    def save(self) -> None:
        """Write the checkpoint."""
        pace.save(self.plan.state / "vae.pt", self.shared.state())

    def images(self, fraction: float) -> torch.Tensor:
        """The next images: crops at first, whole ones later."""
        crops = fraction < _CROP_SHARE and self.plan.start is None
        count = _CROPS if crops else _BATCH
        examples = [scenes.random_scene(self.rng, _PAIR_SHARE) for _ in range(count)]
        images = to_unit([self.composer.draw(scene, self.rng) for scene in examples])
        if crops:
            images = _crop(images, _CROP_PIXELS)
        return images.to(self.replica.device, memory_format=torch.channels_last)

    def step(self, fraction: float) -> float:
        """One update; returns this replica's loss."""
        images = self.images(fraction)

        def loss() -> torch.Tensor:
            with mixed(images.device):
                return loss_of(self.vae, images)

        steps = self.shared.steps
        decay = min(_EMA_DECAY, (1 + steps) / (10 + steps))
        return self.replica.step(loss, pace.learning_rate(_PEAK_RATE, fraction), decay)

    def report(self, loss: float) -> None:
        """Print one line and write a sheet of reconstructions."""
        average = self.shared.average
        images = held_out_images(self.composer, 24).to(self.replica.device)
        decibels = psnr(average, images)
        write_sheet(average, images[:10], self.plan.state / "vae.png")
        minutes = self.clock.elapsed / 60
        line = f"vae {minutes:.1f} min, step {self.shared.steps}: loss {loss:.4f}"
        print(f"{line}, {decibels:.2f} dB", flush=True)

    def run(self) -> None:
        """Train until the time is spent; the first replica reports, saves and ends the stage."""
        interval, losses = pace.Interval(_SAVE_EVERY_S), []
        for fraction in pace.shared_fractions(self.replica, self.clock):
            losses.append(self.step(fraction))
            if self.replica.first and interval.due():
                self.save()
                self.report(sum(losses) / len(losses))
                losses = []
        if self.replica.first:
            self.finish()

    def finish(self) -> None:
        """Measure the average weights, whiten their latents, write them in diffusers' layout."""
        self.save()
        vae = copy.deepcopy(self.shared.average).eval()
        images = held_out_images(self.composer, HELD_OUT_IMAGES).to(self.replica.device)
        print(f"vae: {psnr(vae, images):.2f} dB on {len(images)} held-out images", flush=True)
        if self.plan.start is None:
            whiten(vae, images)
        vae.save_pretrained(self.plan.state / "vae")


def train(plan: VaePlan, count: int) -> None:
    """The whole stage, resumed from its checkpoint where there is one."""
    torch.manual_seed(plan.seed)
    vae = networks.build_vae()
    if plan.start is not None:
        vae = AutoencoderKL.from_pretrained(plan.start / "vae", dtype=torch.float32)
    composer = Composer(sprites.load(plan.state))  # the replicas must not write the sprites

    def stage(replica: Replica) -> None:
        VaeRun(replica, plan, composer).run()

    replicas.train(vae, plan.state / "vae.pt", stage, count)
