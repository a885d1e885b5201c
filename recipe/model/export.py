"""Writes the trained model in diffusers' layout with its notices, and draws sheets of samples."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image, ImageDraw
from transformers import CLIPTextModel, CLIPTokenizer

from recipe.images.compose import PIXELS
from recipe.images.nouns import nouns
from recipe.model import networks, tokens

GUIDANCE = 4.0


def assemble(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
) -> StableDiffusionPipeline:
    """The parts as a pipeline; it shares their weights."""
    pipeline = StableDiffusionPipeline(
        unet=unet,
        text_encoder=text_encoder,
        vae=vae,
        tokenizer=tokenizer,
        scheduler=networks.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def write_model(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save a pipeline of single precision as float16, its synonyms set to their nouns."""
    parts: dict[str, Any] = {
        name: copy.deepcopy(getattr(pipeline, name)).to(torch.float16)
        for name in ("unet", "text_encoder", "vae")
    }
    embedding = parts["text_encoder"].get_input_embeddings()
    tokens.share_meanings(embedding, pipeline.tokenizer, tokens.meanings())
    assemble(tokenizer=pipeline.tokenizer, **parts).save_pretrained(folder)
    for path in folder.glob("*/config.json"):
        _forget_origin(path)
    write_vocabulary(folder)


def _forget_origin(path: Path) -> None:
    """Remove the folder of the training from a configuration."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(f"{json.dumps(config, indent=2)}\n", encoding="utf-8")


def vocabulary() -> dict[str, Any]:
    """The words that the model knows, as `vocabulary.json` has them."""
    return {"draws": "emoji", "things": list(nouns()), "words": tokens.accepted_words()}


def write_vocabulary(folder: Path) -> None:
    """Write the words that the model knows, for the worker's warnings and for people."""
    content = vocabulary()
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / "vocabulary.json").write_text(f"{text}\n", encoding="utf-8")


def draw(pipeline: StableDiffusionPipeline, prompt: str, seed: int, steps: int) -> Image.Image:
    """One image of the prompt."""
    generator = torch.Generator("cpu").manual_seed(seed)
    image: Image.Image = pipeline(
        prompt, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generator
    ).images[0]
    return image


def sample_sheet(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], steps: int = 20
) -> Image.Image:
    """One image a prompt, the seed being its number."""
    images = [draw(pipeline, prompt, seed, steps) for seed, prompt in enumerate(prompts)]
    return contact_sheet(prompts, images, columns=7)


def contact_sheet(
    prompts: Sequence[str], images: Sequence[Image.Image], columns: int
) -> Image.Image:
    """The images in rows, each above its prompt."""
    side, pad, caption = PIXELS, 10, 44
    rows = -(-len(prompts) // columns)
    size = (columns * (side + pad) + pad, rows * (side + caption + pad) + pad)
    sheet = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for k, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        x = pad + k % columns * (side + pad)
        y = pad + k // columns * (side + caption + pad)
        sheet.paste(image.resize((side, side)), (x, y))
        pen.multiline_text((x, y + side + 2), _wrap(pen, prompt, side), (40, 40, 40), font_size=9)
    return sheet


def _wrap(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text in lines of at most so many pixels."""
    lines = [""]
    for word in text.split():
        if pen.textlength(f"{lines[-1]} {word}", font_size=9) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
