"""Measures how often the built-in model draws what a prompt asks for that its training never saw.

The judge is a small network that learned from renderings alone (recipe/training/judge.py). For
backgrounds it is arithmetic. Neither says anything about beauty.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from gpu_worker.pipeline.loading.sources import DEMO_MODEL
from recipe.images import scenes, sprites
from recipe.images.compose import Composer
from recipe.model import export
from recipe.training import judge

JUDGE = Path(__file__).with_name("judge.safetensors")
GOALS = {"noun": 0.85, "background": 0.97, "style": 0.95, "pair": 0.60, "recolouring": 0.70}
_GROUPS = {"noun": 0.5, "pair": 0.25, "recolouring": 0.25}
"""The share of each kind of scene among the questions."""


@dataclass(frozen=True)
class Question:
    """A scene that the training never saw, its words, and the random seed of its image."""

    scene: scenes.Scene
    prompt: str
    seed: int


def _kind(scene: scenes.Scene) -> str:
    if scene.relation is not None:
        return "pair"
    return "noun" if scene.tint is None else "recolouring"


def make_questions(count: int) -> list[Question]:
    """Held-out scenes of every kind, each in the next order of words, always the same ones."""
    rng = random.Random(11)
    room = {kind: round(share * count) for kind, share in _GROUPS.items()}
    questions: list[Question] = []
    while len(questions) < sum(room.values()):
        scene = scenes.random_scene(rng, pair_share=0.3, from_held_out=True)
        if room[_kind(scene)] > sum(_kind(each.scene) == _kind(scene) for each in questions):
            order = scenes.ORDERS[len(questions) % len(scenes.ORDERS)]
            seed = 1000 + len(questions)
            questions.append(Question(scene, scenes.caption(scene, order), seed))
    return questions


def load(folder: Path) -> StableDiffusionPipeline:
    """The saved pipeline in float32, silent."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline, question: Question, steps: int, guidance: float
) -> Image.Image:
    """The model's image for the question."""
    image: Image.Image = pipeline(
        question.prompt,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(question.seed),
    ).images[0]
    return image


def print_rates(title: str, rates: dict[str, float], goals: dict[str, float]) -> None:
    """One line a rate, with its goal if it has one."""
    print(title)
    for name, rate in rates.items():
        goal = f"  (goal {goals[name]:.2f})" if name in goals else ""
        print(f"  {name:20s} {rate:6.3f}{goal}", flush=True)


def check_judge(network: judge.Judge, state: Path, count: int) -> None:
    """Print the judge's own rates on renderings of scenes that it never saw."""
    composer = Composer(sprites.load(state))
    print_rates(
        f"judge on {count} held-out renderings", judge.accuracy(network, composer, count), {}
    )


def measure(options: argparse.Namespace, network: judge.Judge) -> None:
    """Ask the model all questions, print the rates and write the sheet."""
    questions = make_questions(options.questions)
    pipeline = load(options.model)
    generate(pipeline, questions[0], 2, options.guidance)  # warm up, not timed
    start = time.perf_counter()
    images = [generate(pipeline, each, options.steps, options.guidance) for each in questions]
    seconds = (time.perf_counter() - start) / len(questions)
    examples = [each.scene for each in questions]
    rates = judge.rates(examples, judge.judge(network, images, examples))
    title = f"model, {len(questions)} held-out prompts, {options.steps} steps"
    print_rates(f"{title}, guidance {options.guidance}", rates, GOALS)
    print(f"  {'seconds an image':20s} {seconds:6.3f}")
    if options.sheet is not None:
        write_sheet(options.sheet, questions, images, options.sheet_images)


def write_sheet(
    path: Path, questions: Sequence[Question], images: Sequence[Image.Image], count: int
) -> None:
    """The first images, which nobody has picked, each above its prompt."""
    prompts = [each.prompt for each in questions[:count]]
    path.parent.mkdir(parents=True, exist_ok=True)
    export.contact_sheet(prompts, images[:count], columns=8).save(path)


def main() -> None:
    """Read the command line, judge the judge where sprites are at hand, then the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO_MODEL)
    parser.add_argument("--judge", type=Path, default=JUDGE)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=export.GUIDANCE)
    parser.add_argument("--sheet", type=Path, help="write a sheet of the first images")
    parser.add_argument("--sheet-images", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--sprites", type=Path, help="the recipe's folder: first measure the judge on renderings"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = judge.load(options.judge)
    if options.sprites is not None:
        check_judge(network, options.sprites, judge.HELD_OUT_IMAGES)
    measure(options, network)


if __name__ == "__main__":
    main()
