"""Trains the classifier that judges the model: it names nouns, style and tint of an image.

It learns from renderings alone and never sees an image that a network has generated.
Backgrounds need no network: `background_of` compares colours.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from recipe.images import scenes, sprites
from recipe.images.compose import Composer
from recipe.images.nouns import nouns
from recipe.images.sprites import STYLES
from recipe.training import pace, replicas
from recipe.training.precision import mixed
from recipe.training.replicas import Replica
from recipe.training.vae import to_unit

_BATCH = 24
_PEAK_RATE = 2e-3
_EMA_DECAY = 0.995
_WIDTHS = (32, 64, 128, 192)
_SAVE_EVERY_S = 60.0
_NOISE, _BLUR = 0.08, 0.4
TINTS = (None, *scenes.TINTS)
HELD_OUT_IMAGES = 1000
_BORDER = 2
"""Pixels at the edge that no single noun in the middle reaches."""


class _Block(torch.nn.Module):
    """Halves the image, then adds what two convolutions make of it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.norms = torch.nn.ModuleList(torch.nn.GroupNorm(8, outputs) for _ in range(2))
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(outputs, outputs, 3, padding=1) for _ in range(2)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) to (n, outputs, h / 2, w / 2)."""
        image = inner = self.down(image)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            inner = conv(functional.silu(norm(inner)))
        return image + inner


class Judge(torch.nn.Module):
    """Images (n, 3, 96, 96) in -1..1 to scores of nouns, styles and tints."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, _WIDTHS[0], 3, stride=2, padding=1)
        self.blocks = torch.nn.Sequential(*(_Block(a, b) for a, b in itertools.pairwise(_WIDTHS)))
        self.norm = torch.nn.GroupNorm(8, _WIDTHS[-1])
        self.heads = torch.nn.Linear(2 * _WIDTHS[-1], len(nouns()) + len(STYLES) + len(TINTS))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Three tensors of scores."""
        places = functional.silu(self.norm(self.blocks(self.stem(images))))
        pooled = torch.cat([places.mean(dim=(2, 3)), places.amax(dim=(2, 3))], dim=1)
        return self.heads(pooled).split([len(nouns()), len(STYLES), len(TINTS)], dim=1)


@dataclass(frozen=True)
class Verdict:
    """What the judge sees: as many nouns as were asked, style, tint and background colours."""

    nouns: frozenset[str]
    style: str
    tint: str | None
    background: tuple[str, ...]


def _nearest_color(pixels: np.ndarray) -> str:
    """The name of the background colour that the median pixel (n, 3) is nearest to."""
    median = np.median(pixels, axis=0)
    distances = {
        name: float(np.linalg.norm(median - rgb)) for name, rgb in scenes.BACKGROUNDS.items()
    }
    return min(distances, key=distances.__getitem__)


def background_of(image: Image.Image, count: int) -> tuple[str, ...]:
    """The colours of the edge: of all of it, or of its upper and its lower part."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    edge = np.ones(pixels.shape[:2], dtype=bool)
    edge[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    third = len(pixels) // 3
    if count == 1:
        return (_nearest_color(pixels[edge]),)
    halves = (slice(0, third), slice(-third, None))
    return tuple(_nearest_color(pixels[half][edge[half]]) for half in halves)


@torch.no_grad()
def judge(
    network: Judge, images: Sequence[Image.Image], examples: Sequence[scenes.Scene]
) -> list[Verdict]:
    """A verdict on each image; of the asked scene it knows only how many nouns and colours."""
    verdicts = []
    for image, scene in zip(images, examples, strict=True):
        scores, styles, tints = network(to_unit([image.convert("RGB")]))
        best = scores[0].topk(len(scene.nouns)).indices.tolist()
        verdicts.append(
            Verdict(
                frozenset(nouns()[k] for k in best),
                STYLES[int(styles[0].argmax())],
                TINTS[int(tints[0].argmax())],
                background_of(image, len(scene.background)),
            )
        )
    return verdicts


def rates(examples: Sequence[scenes.Scene], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Shares of right images, 0..1, by property; of a group without images, nothing."""
    groups: dict[str, list[bool]] = {}
    for scene, verdict in zip(examples, verdicts, strict=True):
        right = verdict.nouns == frozenset(scene.nouns)
        tinted = right and verdict.tint == scene.tint
        kind = "pair" if scene.relation else "recolouring" if scene.tint else "noun"
        groups.setdefault(kind, []).append(tinted if kind == "recolouring" else right)
        groups.setdefault("background", []).append(verdict.background == scene.background)
        groups.setdefault("style", []).append(verdict.style == scene.style)
    return {name: sum(marks) / len(marks) for name, marks in groups.items()}


def _labels(examples: Sequence[scenes.Scene]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    numbers = {noun: k for k, noun in enumerate(nouns())}
    shares = torch.zeros(len(examples), len(numbers))
    for row, scene in zip(shares, examples, strict=True):
        for noun in scene.nouns:
            row[numbers[noun]] += 1 / len(scene.nouns)
    styles = torch.tensor([STYLES.index(scene.style) for scene in examples])
    return shares, styles, torch.tensor([TINTS.index(scene.tint) for scene in examples])


def _soften(images: torch.Tensor) -> torch.Tensor:
    """Blur about half of the images a little, and add noise."""
    blurred = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    share = torch.rand(len(images), 1, 1, 1) * (torch.rand(len(images), 1, 1, 1) < 2 * _BLUR)
    return images.lerp(blurred, share) + _NOISE * torch.rand(1) * torch.randn_like(images)


class JudgeRun:
    """The training in one replica."""

    def __init__(self, replica: Replica, state: Path, minutes: float, composer: Composer) -> None:
        self.replica, self.state = replica, state
        self.clock = pace.Clock(minutes, float(replica.shared.progress[1]))
        seed = 31 + replica.shared.steps + 7919 * replica.rank
        torch.manual_seed(seed)
        self.rng = random.Random(seed)
        self.composer = composer

    def step(self, fraction: float) -> float:
        """One update; returns this replica's loss."""
        examples = [scenes.random_scene(self.rng, 0.4) for _ in range(_BATCH)]
        images = _soften(to_unit([self.composer.draw(scene, self.rng) for scene in examples]))
        device = self.replica.device
        shares, styles, tints = (part.to(device) for part in _labels(examples))

        def loss() -> torch.Tensor:
            with mixed(device):
                scores = self.replica.shared.network(images.to(device))
            noun, style, tint = (part.float() for part in scores)
            return (
                functional.cross_entropy(noun, shares)
                + 0.3 * functional.cross_entropy(style, styles)
                + 0.3 * functional.cross_entropy(tint, tints)
            )

        return self.replica.step(loss, pace.learning_rate(_PEAK_RATE, fraction), _EMA_DECAY)

    def average(self) -> Judge:
        """A copy of the average weights on the CPU."""
        network: Judge = copy.deepcopy(self.replica.shared.average).cpu()
        return network

    def run(self) -> None:
        """Train until the time is spent; the first replica reports, saves and writes the file."""
        interval, losses = pace.Interval(_SAVE_EVERY_S), []
        for fraction in pace.shared_fractions(self.replica, self.clock):
            losses.append(self.step(fraction))
            if self.replica.first and interval.due():
                pace.save(self.state / "judge.pt", self.replica.shared.state())
                line = (
                    f"judge step {self.replica.shared.steps}: loss {sum(losses) / len(losses):.3f}"
                )
                print(
                    line,
                    accuracy(self.average(), self.composer, 100),
                    flush=True,
                )
                losses = []
        if self.replica.first:
            average = self.average()
            pace.save(self.state / "judge.pt", self.replica.shared.state())
            halves = {name: part.half() for name, part in average.state_dict().items()}
            save_file(halves, self.state / "judge.safetensors")
            print("judge", accuracy(average, self.composer, HELD_OUT_IMAGES), flush=True)


def accuracy(network: Judge, composer: Composer, count: int) -> dict[str, float]:
    """The judge's own rates on renderings of scenes that it never saw."""
    rng = random.Random(99)
    examples = [scenes.random_scene(rng, from_held_out=True) for _ in range(count)]
    images = [composer.draw(scene, rng) for scene in examples]
    shares = rates(examples, judge(network, images, examples))
    return {name: round(share, 3) for name, share in shares.items()}


def load(path: Path) -> Judge:
    """A trained judge from its file."""
    network = Judge()
    network.load_state_dict({name: part.float() for name, part in load_file(path).items()})
    return network.eval()


def train(state: Path, minutes: float, count: int) -> None:
    """The whole training, resumed from its checkpoint where there is one."""
    torch.manual_seed(31)
    composer = Composer(sprites.load(state))  # the replicas must not write the sprites

    def stage(replica: Replica) -> None:
        JudgeRun(replica, state, minutes, composer).run()

    replicas.train(Judge(), state / "judge.pt", stage, count)
