"""Measures how often the demonstration model draws what a held-out prompt asks for.

The judge is arithmetic on pixels, with no learned part; it says nothing about beauty.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gpu_worker.demo_model import shapes
from gpu_worker.pipeline.loading.sources import DEMO

MODEL = Path(shapes.__file__).parent
_PALETTE = np.array(list(shapes.PALETTE.values()), dtype=float)
_NAMES = list(shapes.PALETTE)
_BORDER = 2  # no drawn shape reaches this far out
_FOREIGN = 60.0  # RGB distance from the background at which a pixel counts as the shape
_LEAST_PIXELS = 40
_LEAST_FIT = 0.75
_SIZE_LIMIT = (shapes.SIZES["small"][1] + shapes.SIZES["large"][0]) / 2
_GOALS = {"background": 0.90, "color": 0.90, "shape": 0.85}


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in a picture; None where it can't tell."""

    background: str
    color: str | None
    shape: str | None
    size: str | None
    fit: float


def _nearest(pixels: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index of the nearest palette colour for each pixel (..., 3)."""
    return np.linalg.norm(pixels[..., None, :] - _PALETTE, axis=-1).argmin(axis=-1)


def background_of(pixels: NDArray[np.float64]) -> tuple[str, NDArray[np.float64]]:
    """Name and RGB of the border's median colour; pixels (64, 64, 3) in 0..255."""
    inside = np.zeros(pixels.shape[:2], dtype=bool)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
    median = np.median(pixels[~inside], axis=0)
    return _NAMES[int(_nearest(median))], median


def color_of(pixels: NDArray[np.float64], background: NDArray[np.float64]) -> str | None:
    """The palette colour that most non-background pixels are nearest to."""
    foreign = pixels[np.linalg.norm(pixels - background, axis=-1) > _FOREIGN]
    if len(foreign) < _LEAST_PIXELS:
        return None
    counts = np.bincount(_nearest(foreign), minlength=len(_NAMES))
    counts[int(_nearest(background))] = 0
    return _NAMES[int(counts.argmax())]


def coverage(
    pixels: NDArray[np.float64], background: NDArray[np.float64], color: str
) -> NDArray[np.float64]:
    """How much of each pixel (64, 64) is shape, 0..1: its place between the two colours."""
    target = _PALETTE[_NAMES.index(color)]
    foreign = np.linalg.norm(pixels - background, axis=-1) > _FOREIGN
    near = foreign & (_nearest(pixels) == _NAMES.index(color))
    axis = (np.median(pixels[near], axis=0) if near.any() else target) - background
    return np.clip((pixels - background) @ axis / (axis @ axis + 1e-6), 0.0, 1.0)


def _template(shape: str, x: float, y: float, radius: float) -> NDArray[np.float64]:
    return np.asarray(shapes.draw_mask(shape, x, y, radius), dtype=float) / 255


def _centre(mask: NDArray[np.float64]) -> tuple[float, float, float]:
    """Centroid x, y in pixels and area in pixels."""
    area = mask.sum()
    grid = np.arange(mask.shape[0]) + 0.5
    return float(mask.sum(0) @ grid / area), float(mask.sum(1) @ grid / area), float(area)


def best_fit(mask: NDArray[np.float64], shape: str) -> tuple[float, float]:
    """Soft IoU (0..1) and radius in pixels of the shape's best place and scale on the mask."""
    x, y, area = _centre(mask)
    unit_x, unit_y, unit_area = _centre(_template(shape, 32, 32, 20))
    best = (0.0, 0.0)
    for factor in (0.92, 0.96, 1.0, 1.04, 1.08):
        radius = 20 * factor * (area / unit_area) ** 0.5
        left, top = x - (unit_x - 32) * radius / 20, y - (unit_y - 32) * radius / 20
        for dx, dy in ((0, 0), (-0.8, 0), (0.8, 0), (0, -0.8), (0, 0.8)):
            template = _template(shape, left + dx, top + dy, radius)
            both = np.minimum(mask, template).sum() / np.maximum(mask, template).sum()
            best = max(best, (float(both), radius))
    return best


def judge(picture: Image.Image) -> Verdict:
    """What one 64x64 RGB picture shows."""
    pixels = np.asarray(picture.convert("RGB"), dtype=float)
    name, background = background_of(pixels)
    color = color_of(pixels, background)
    if color is None:
        return Verdict(name, None, None, None, 0.0)
    mask = coverage(pixels, background, color)
    (fit, radius), shape = max((best_fit(mask, shape), shape) for shape in shapes.SHAPES)
    size = "small" if radius < _SIZE_LIMIT else "large"
    return Verdict(name, color, shape if fit >= _LEAST_FIT else None, size, fit)


@dataclass(frozen=True)
class Pair:
    """One question to the model; the size counts only where the prompt names it."""

    wanted: shapes.Combination
    prompt: str
    seed: int

    @property
    def names_size(self) -> bool:
        return self.wanted.size in self.prompt


def make_pairs(count: int) -> list[Pair]:
    """Held-out combinations, each in the next word order, with fixed seeds."""
    wanted = sorted(shapes.held_out(), key=str)
    random.Random(0).shuffle(wanted)
    orders = shapes.BENCH_ORDERS
    pairs = []
    for k in range(count):
        combination = wanted[k % len(wanted)]
        order = orders[(k + k // len(wanted)) % len(orders)]
        pairs.append(Pair(combination, shapes.word(order, combination), 1000 + k))
    return pairs


def rates(pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Share of right pictures by property, 0..1."""
    both = list(zip(pairs, verdicts, strict=True))
    sized = [(p, v) for p, v in both if p.names_size]
    background = [p.wanted.background == v.background for p, v in both]
    color = [p.wanted.color == v.color for p, v in both]
    shape = [p.wanted.shape == v.shape for p, v in both]
    return {
        "background": float(np.mean(background)),
        "color": float(np.mean(color)),
        "background+color": float(np.mean(np.array(background) & np.array(color))),
        "shape": float(np.mean(shape)),
        "size (where named)": float(np.mean([p.wanted.size == v.size for p, v in sized])),
        "all but size": float(np.mean(np.array(background) & np.array(color) & np.array(shape))),
        "mean fit (IoU)": float(np.mean([v.fit for v in verdicts])),
    }


def check_judge(pairs: Sequence[Pair]) -> bool:
    """Prints the judge's rates on true pictures and on wrongly paired ones; True if both fit."""
    rng = random.Random(1)
    verdicts = [judge(shapes.draw(pair.wanted, rng)) for pair in pairs]
    true, wrong = rates(pairs, verdicts), rates(pairs, verdicts[7:] + verdicts[:7])
    print_rates("judge on drawn pictures (must be about 1)", true)
    print_rates("judge on wrongly paired pictures (must be low)", wrong)
    return true["all but size"] > 0.98 and wrong["all but size"] < 0.1


def print_rates(title: str, found: dict[str, float]) -> None:
    """One line a rate, with its goal."""
    print(title)
    for name, rate in found.items():
        goal = f"  (goal {_GOALS[name]:.2f})" if name in _GOALS else ""
        print(f"  {name:20s} {rate:6.3f}{goal}")


def load(folder: Path) -> StableDiffusionPipeline:
    """The saved pipeline in float32, silent."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline, pair: Pair, steps: int, guidance: float
) -> Image.Image:
    """The model's 64x64 picture for the pair."""
    return pipeline(
        pair.prompt,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(pair.seed),
    ).images[0]


def write_sheet(path: Path, pairs: Sequence[Pair], pictures: Sequence[Image.Image]) -> None:
    """A contact sheet, six pictures a row upscaled, each over its prompt."""
    side, pad, caption, columns = 144, 14, 34, 6
    rows = -(-len(pairs) // columns)
    width = columns * (side + pad) + pad
    sheet = Image.new("RGB", (width, rows * (side + caption + pad) + pad), (250, 250, 250))
    pen = ImageDraw.Draw(sheet)
    for k, (pair, picture) in enumerate(zip(pairs, pictures, strict=True)):
        x = pad + k % columns * (side + pad)
        y = pad + k // columns * (side + caption + pad)
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (x, y))
        pen.rectangle((x, y, x + side - 1, y + side - 1), outline=(200, 200, 200))
        words, lines = pair.prompt.split(), [""]
        for text in words:
            if pen.textlength(f"{lines[-1]} {text}", font_size=11) > side:
                lines.append("")
            lines[-1] = f"{lines[-1]} {text}".strip()
        pen.multiline_text((x, y + side + 3), "\n".join(lines), (40, 40, 40), font_size=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def main() -> None:
    """Judge the judge, then the model; write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=DEMO.defaults.guidance_scale)
    parser.add_argument("--sheet", type=Path, default=Path("docs/demo_model.png"))
    parser.add_argument("--sheet-pictures", type=int, default=36)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = make_pairs(options.pairs)
    if not check_judge(pairs):
        raise SystemExit("the judge does not tell right from wrong; its rates mean nothing")
    pipeline = load(options.model)
    generate(pipeline, replace(pairs[0], seed=0), 2, options.guidance)  # warm up, not timed
    start = time.perf_counter()
    pictures = [generate(pipeline, pair, options.steps, options.guidance) for pair in pairs]
    seconds = (time.perf_counter() - start) / len(pairs)
    verdicts = [judge(picture) for picture in pictures]
    title = f"model, {len(pairs)} held-out prompts, {options.steps} steps"
    print_rates(f"{title}, guidance {options.guidance}", rates(pairs, verdicts))
    print(f"  {'seconds a picture':20s} {seconds:6.3f}")
    shown = slice(options.sheet_pictures)
    write_sheet(options.sheet, pairs[shown], pictures[shown])


if __name__ == "__main__":
    main()
