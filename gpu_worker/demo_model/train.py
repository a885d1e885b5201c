"""Trains the demonstration model from nothing: draws images, then the VAE, then UNet and text.

Resumes from its state folder; it judges nothing (bench/demo_model.py does).
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn import functional
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from gpu_worker.demo_model import networks, shapes
from gpu_worker.demo_model.pace import Clock, learning_rate, set_rate
from gpu_worker.demo_model.tokenizer import build_tokenizer

SEED = 20
_SAVE_EVERY_S = 120.0
_VAE_BATCH, _UNET_BATCH = 8, 32
_VAE_RATE, _UNET_RATE = 1.5e-3, 1.2e-3
_AGAIN_RATE = 1e-3
"""The peak where training goes on from finished weights: a little lower, and enough to move."""

_KL_WEIGHT = 1e-4
_EDGE_WEIGHT = 0.5
_EMA_DECAY = 0.998


@dataclass(frozen=True)
class Plan:
    """Where the run writes, how long its two stages last, and whose weights it begins with."""

    out: Path
    state: Path
    minutes_vae: float
    minutes_unet: float
    images: int
    start: Path | None = None


def draw_set(count: int, state: Path) -> tuple[torch.Tensor, list[shapes.Combination]]:
    """The training images, uint8 (count, 3, 64, 64), and what each shows."""
    rng = random.Random(SEED)
    choices = shapes.training_combinations()
    combinations = [choices[rng.randrange(len(choices))] for _ in range(count)]
    cache = state / f"images-{count}.npy"
    if cache.exists():
        return torch.from_numpy(np.load(cache)), combinations
    scenes = [
        np.asarray(shapes.draw(c, rng)) for c in tqdm(combinations, desc="draw", mininterval=2)
    ]
    images = np.stack(scenes).transpose(0, 3, 1, 2).copy()
    np.save(cache, images)
    return torch.from_numpy(images), combinations


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 images to float -1..1, channels last in memory."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images.diff(dim=2), images.diff(dim=3)


def vae_loss(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """L1 on pixels and on their differences (sharp edges), and a little KL."""
    posterior = vae.encode(images).latent_dist
    again = vae.decode(posterior.sample()).sample
    loss = functional.l1_loss(again, images)
    for reconstruction, true in zip(_edges(again), _edges(images), strict=True):
        loss = loss + _EDGE_WEIGHT * functional.l1_loss(reconstruction, true)
    mean, logvar = posterior.mean, posterior.logvar
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return loss + _KL_WEIGHT * kl


def train_vae(plan: Plan, images: torch.Tensor) -> AutoencoderKL:
    """The trained VAE, with its scaling factor set; read back if an earlier run finished it."""
    folder = plan.state / "vae"
    if folder.exists():
        return AutoencoderKL.from_pretrained(folder)
    if plan.start is not None:
        return AutoencoderKL.from_pretrained(plan.start / "vae", dtype=torch.float32)
    vae = networks.build_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=0.0, betas=(0.9, 0.98))
    shown_loss, clock = 0.0, Clock(plan.minutes_vae)
    for step, fraction in enumerate(clock.fractions("vae")):
        set_rate(optimizer, learning_rate(_VAE_RATE, fraction))
        loss = vae_loss(vae, to_unit(images[torch.randint(len(images), (_VAE_BATCH,))]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        shown_loss += loss.item()
        if step % 200 == 199:
            tqdm.write(f"vae step {step + 1}: loss {shown_loss / 200:.4f}")
            shown_loss = 0.0
    vae.register_to_config(scaling_factor=1 / encode(vae, images[:2000]).std().item())
    vae.save_pretrained(folder)
    return vae


@torch.no_grad()
def encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Mean latents (n, 4, 16, 16), not scaled."""
    return torch.cat([vae.encode(to_unit(p)).latent_dist.mode() for p in images.split(100)])


def random_times(count: int) -> torch.Tensor:
    """Timesteps 0..999 (count,): half uniform, half logit-normal, where outlines are decided.

    Logit-normal sampling: Esser et al., "Scaling Rectified Flow Transformers", 2024, section 3.1.
    """
    middle = torch.randn(count).sigmoid()
    chosen = torch.where(torch.rand(count) < 0.5, middle, torch.rand(count))
    return (chosen * 1000).long().clamp(max=999)


class Denoiser(torch.nn.Module):
    """UNet and text encoder as one trainable thing."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet = networks.build_unet().to(memory_format=torch.channels_last)
        self.text_encoder = networks.build_text_encoder(tokenizer)

    def begin_with(self, pipeline: Path) -> None:
        """Take the weights of a finished pipeline of the same sizes."""
        unet = UNet2DConditionModel.from_pretrained(pipeline / "unet", dtype=torch.float32)
        text = CLIPTextModel.from_pretrained(pipeline / "text_encoder", dtype=torch.float32)
        self.unet.load_state_dict(unet.state_dict())
        self.text_encoder.load_state_dict(text.state_dict())

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Predicted velocity (n, 4, 16, 16)."""
        return self.unet(noisy, t, self.text_encoder(tokens).last_hidden_state).sample


class DenoiserRun:
    """The second stage: its networks, average weights, optimizer, and their checkpoint."""

    def __init__(self, plan: Plan, vae: AutoencoderKL) -> None:
        self.plan, self.vae = plan, vae
        self.tokenizer = build_tokenizer(shapes.vocabulary())
        self.scheduler = networks.build_scheduler()
        self.model = Denoiser(self.tokenizer)
        if plan.start is not None:
            self.model.begin_with(plan.start)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), weight_decay=0.01, betas=(0.9, 0.98)
        )
        self.steps, self.clock = 0, Clock(plan.minutes_unet)
        self.checkpoint = plan.state / "denoiser.pt"
        if self.checkpoint.exists():
            self._load()
        self.rng = random.Random(SEED + self.steps)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        for name in ("model", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.steps, self.clock.elapsed = state["steps"], state["elapsed"]

    def save(self) -> None:
        """Writes the checkpoint, and the average weights as a pipeline that loads at once."""
        state = {n: getattr(self, n).state_dict() for n in ("model", "average", "optimizer")}
        state |= {"steps": self.steps, "elapsed": self.clock.elapsed}
        torch.save(state, self.checkpoint)
        parts = (self.average.text_encoder, self.average.unet, self.vae)
        networks.save_pipeline(self.plan.out, self.tokenizer, *parts)

    def step(self, latents: torch.Tensor, prompts: list[str], rate: float) -> float:
        """One update on scaled latents (n, 4, 16, 16); returns the loss."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        noise = torch.randn_like(latents)
        t = random_times(len(latents))
        noisy = self.scheduler.add_noise(latents, noise, t)
        target = self.scheduler.get_velocity(latents, noise, t)
        set_rate(self.optimizer, rate)
        loss = functional.mse_loss(self.model(noisy, t, tokens.input_ids), target)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        decay = min(_EMA_DECAY, self.steps / (self.steps + 10))
        averages, currents = list(self.average.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(averages, [p.detach() for p in currents], 1 - decay)
        return loss.item()

    def run(self, latents: torch.Tensor, combinations: list[shapes.Combination]) -> None:
        """Trains until the time budget is spent, saving every other minute."""
        saved, total = time.monotonic(), 0.0
        peak = _UNET_RATE if self.plan.start is None else _AGAIN_RATE
        for fraction in self.clock.fractions("unet"):
            chosen = torch.randint(len(latents), (_UNET_BATCH,))
            prompts = [shapes.training_prompt(combinations[k], self.rng) for k in chosen.tolist()]
            total += self.step(latents[chosen], prompts, learning_rate(peak, fraction))
            if self.steps % 100 == 0:
                tqdm.write(f"unet step {self.steps}: loss {total / 100:.4f}")
                total = 0.0
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()


def train(plan: Plan) -> None:
    """The whole recipe; stages that an earlier run finished are read back."""
    plan.state.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    images, combinations = draw_set(plan.images, plan.state)
    vae = train_vae(plan, images).eval()
    run = DenoiserRun(plan, vae)
    run.save()
    run.run(encode(vae, images) * vae.config.scaling_factor, combinations)


def main() -> None:
    """Read the command line, train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--state", type=Path, default=Path("data/demo_training"))
    parser.add_argument("--minutes-vae", type=float, default=12.0)
    parser.add_argument("--minutes-unet", type=float, default=65.0)
    parser.add_argument("--images", type=int, default=16000)
    parser.add_argument("--start", type=Path, help="a finished pipeline to train further")
    parser.add_argument("--threads", type=int, default=2)
    options = vars(parser.parse_args())
    torch.set_num_threads(options.pop("threads"))
    train(Plan(**options))


if __name__ == "__main__":
    main()
