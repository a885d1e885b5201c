"""Trains the UNet and the text encoder together on latents of the finished autoencoder."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from recipe.images import scenes, sprites
from recipe.images.compose import Composer
from recipe.model import export, networks, tokens
from recipe.training import codes, pace, replicas
from recipe.training.latents import LatentStore
from recipe.training.precision import mixed
from recipe.training.replicas import Replica

_BATCH = 16
"""Latents in a replica's batch on a CPU."""

_GPU_BATCH = 256
PEAK_RATE = 2e-3
"""The highest learning rate from random weights; a finished model needs less."""

_EMA_DECAY = 0.998
_CAPACITY = 24_000
FIRST_LATENTS = 256
_USES = 8
"""How many steps a latent serves on average."""

_SAVE_EVERY_S = 180.0
_SAMPLE_EVERY_S = 900.0


@dataclass(frozen=True)
class DenoiserPlan:
    """Where the run lives, how long it lasts, and whose weights it begins with."""

    state: Path
    minutes: float
    start: Path | None = None
    size: str = "small"
    rate: float = PEAK_RATE
    seed: int = 2


class Denoiser(torch.nn.Module):
    """UNet and text encoder as one trainable thing."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def train_fast(self) -> None:
        """Attend by plain products: on a CPU, the backward pass of fused attention takes longer."""
        self.unet.set_attn_processor(AttnProcessor())
        self.text_encoder.set_attn_implementation("eager")

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Predicted velocity (n, 4, 24, 24)."""
        text = self.text_encoder(tokens).last_hidden_state
        velocity: torch.Tensor = self.unet(noisy, t, text, return_dict=False)[0]
        return velocity


def random_times(alphas: torch.Tensor, count: int) -> torch.Tensor:
    """Timesteps (count,): half uniform, half uniform in the angle between image and noise.

    The angle is that of Salimans and Ho, "Progressive Distillation", 2022, appendix D: there the
    velocity changes evenly. Uniform timesteps favour the noisy end, where colours are decided.
    """
    noisiness = (1 - alphas).sqrt()
    angles = torch.rand(count) * (math.pi / 2)
    evenly = torch.searchsorted(noisiness, angles.sin()).clamp(max=len(alphas) - 1)
    uniform = torch.randint(len(alphas), (count,))
    return torch.where(torch.rand(count) < 0.5, evenly, uniform)


class DenoiserRun:
    """The stage in one replica: its latents, how it learns, checkpoint and samples."""

    def __init__(
        self, replica: Replica, plan: DenoiserPlan, vae: AutoencoderKL, composer: Composer
    ) -> None:
        self.replica, self.plan, self.shared, self.vae = replica, plan, replica.shared, vae
        self.tokenizer = tokens.model_tokenizer()
        self.scheduler = networks.build_scheduler()
        self.clock = pace.Clock(plan.minutes, float(self.shared.progress[1]))
        seed = plan.seed + self.shared.steps + 7919 * replica.rank
        torch.manual_seed(seed)
        self.rng = random.Random(seed)
        self.on_gpu = replica.device.type == "cuda"
        self.store = LatentStore(vae, composer, self.rng, _CAPACITY)
        self.batch = _GPU_BATCH if self.on_gpu else _BATCH
        self.network = torch.compile(self.shared.network) if self.on_gpu else self.shared.network

    def save(self) -> None:
        """Write the checkpoint."""
        pace.save(self.plan.state / "denoiser.pt", self.shared.state())

    def step(self, fraction: float) -> float:
        """One update; returns this replica's loss."""
        self.store.add(max(1, self.batch // _USES))
        latents, captions = self.store.batch(self.batch)
        ids = self.tokenizer(
            captions, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        times = random_times(self.scheduler.alphas_cumprod, self.batch)
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, times)
        target = self.scheduler.get_velocity(latents, noise, times).to(self.replica.device)
        inputs = [part.to(self.replica.device) for part in (noisy, times, ids)]
        inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)

        def loss() -> torch.Tensor:
            with mixed(self.replica.device):
                velocity = self.network(*inputs)
            return functional.mse_loss(velocity.float(), target)

        decay = min(_EMA_DECAY, (1 + self.shared.steps) / (10 + self.shared.steps))
        return self.replica.step(loss, pace.learning_rate(self.plan.rate, fraction), decay)

    def run(self) -> None:
        """Train until the time is spent; the first replica reports, saves and ends the stage."""
        self.store.add(FIRST_LATENTS)
        saving, sampling = pace.Interval(_SAVE_EVERY_S), pace.Interval(_SAMPLE_EVERY_S)
        losses: list[float] = []
        for fraction in pace.shared_fractions(self.replica, self.clock):
            losses.append(self.step(fraction))
            if not self.replica.first:
                continue
            if saving.due():
                self.save()
                loss, minutes = sum(losses) / len(losses), self.clock.elapsed / 60
                line = f"unet {minutes:.1f} min, step {self.shared.steps}: loss {loss:.4f}"
                print(line, flush=True)
                losses = []
            if sampling.due():
                self.write_samples()
        if self.replica.first:
            self.save()
            self.write_samples()

    def write_samples(self) -> None:
        """Draw a few prompts, some of them held out, with the average weights."""
        average = self.shared.average
        pipeline = export.assemble(average.unet, average.text_encoder, self.vae, self.tokenizer)
        sheet = export.sample_sheet(pipeline, sample_prompts(), steps=12)
        sheet.save(self.plan.state / f"unet-{self.shared.steps:06d}.png")


def sample_prompts() -> list[str]:
    """Prompts whose images show the progress: training's and held-out ones in turn."""
    rng = random.Random(5)
    examples = [scenes.random_scene(rng, from_held_out=k % 2 == 1) for k in range(12)]
    captions = [scenes.caption(scene) for scene in examples]
    return ["a cat", "a rocket on a blue background", *captions]


def _begin(
    plan: DenoiserPlan, tokenizer: CLIPTokenizer, vae: AutoencoderKL, composer: Composer
) -> Denoiser:
    """The networks as a run begins with them: random ones, or those of the plan's model."""
    if plan.start is not None:
        return Denoiser(
            UNet2DConditionModel.from_pretrained(plan.start / "unet", dtype=torch.float32),
            CLIPTextModel.from_pretrained(plan.start / "text_encoder", dtype=torch.float32),
        )
    text_encoder = networks.build_text_encoder(tokenizer)
    embedding = text_encoder.get_input_embeddings()
    codes.begin_with_looks(embedding, tokenizer, codes.load(plan.state, vae, composer))
    return Denoiser(networks.build_unet(plan.size), text_encoder)


def _continued(state: Path, tokenizer: CLIPTokenizer) -> Denoiser:
    """Networks of a run's sizes, whose weights its checkpoint has."""
    config = UNet2DConditionModel.load_config(state / "unet")
    unet = UNet2DConditionModel.from_config(config)
    return Denoiser(unet, networks.build_text_encoder(tokenizer))


def train(plan: DenoiserPlan, count: int) -> None:
    """The whole stage, resumed from its checkpoint where there is one."""
    torch.manual_seed(plan.seed)
    folder = plan.state / "vae"
    if plan.start is not None and not folder.exists():
        AutoencoderKL.from_pretrained(plan.start / "vae").save_pretrained(folder)
    vae = AutoencoderKL.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
    vae = vae.to(replicas.device(), memory_format=torch.channels_last)
    composer = Composer(sprites.load(plan.state))  # the replicas must not write the sprites
    checkpoint, tokenizer = plan.state / "denoiser.pt", tokens.model_tokenizer()
    if checkpoint.exists():
        network = _continued(plan.state, tokenizer)
    else:
        network = _begin(plan, tokenizer, vae, composer)
        network.unet.save_config(plan.state / "unet")
    if replicas.device().type == "cpu":
        network.train_fast()

    def stage(replica: Replica) -> None:
        DenoiserRun(replica, plan, vae, composer).run()

    replicas.train(network, checkpoint, stage, count)


def trained(state: Path) -> StableDiffusionPipeline:
    """The pipeline of a run's average weights."""
    tokenizer = tokens.model_tokenizer()
    shared = replicas.SharedWeights(_continued(state, tokenizer), 1)
    shared.restore(torch.load(state / "denoiser.pt", weights_only=True, map_location="cpu"))
    vae = AutoencoderKL.from_pretrained(state / "vae", dtype=torch.float32)
    return export.assemble(shared.average.unet, shared.average.text_encoder, vae, tokenizer)
