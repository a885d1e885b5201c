"""The few words that the tokenizers of the tiny models know, each one token."""

from __future__ import annotations

from transformers import CLIPTokenizer

from recipe.model.tokens import build_tokenizer

WORDS = (
    "a", "an", "and", "art", "background", "beautiful", "black", "blue", "bright", "circle",
    "clean", "cross", "detailed", "digital", "drawing", "flat", "front", "green", "heart", "high",
    "icon", "illustration", "image", "in", "is", "large", "of", "on", "orange", "photo", "picture",
    "purple", "quality", "red", "sharp", "simple", "small", "square", "star", "the", "triangle",
    "white", "with", "yellow",
)  # fmt: skip


def clip_tokenizer() -> CLIPTokenizer:
    """It reads 77 tokens, as Stable Diffusion's does."""
    return build_tokenizer(WORDS, max_tokens=77)
