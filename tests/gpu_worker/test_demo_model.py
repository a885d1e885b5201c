"""What every version of the built-in model does: it knows its words and obeys a background."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from gpu_worker import pipeline
from gpu_worker.pipeline.loading import sources, vocabulary
from recipe.images import nouns
from recipe.model import export
from recipe.training import judge
from tests.support.pipeline_jobs import demo_side_px, ignore, job, settings
from tests.support.service import ROOT

LARGEST_BYTES = 30_000_000


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image.Image]:
    """A cat on two backgrounds, with one seed."""
    ours = pipeline.load(settings(tmp_path_factory.mktemp("demo")))
    return {
        color: ours.generate(
            job(prompt=f"a cat on a {color} background", num_inference_steps=10), ignore
        )[0].image
        for color in ("red", "blue")
    }


def test_a_word_decides_the_background(images: dict[str, Image.Image]) -> None:
    assert {color: judge.background_of(image, 1) for color, image in images.items()} == {
        "red": ("red",),
        "blue": ("blue",),
    }
    assert {image.size for image in images.values()} == {(demo_side_px(),) * 2}


def test_the_words_are_those_of_the_recipe() -> None:
    content = json.loads((sources.DEMO_MODEL / vocabulary.FILE).read_text(encoding="utf-8"))
    assert content == export.vocabulary()


def test_the_texts_name_the_right_number_of_things() -> None:
    count = len(nouns.nouns())
    for path in ("README.md", "gpu_worker/demo_model/README.md", "gateway/web/make/empty.js"):
        assert str(count) in (ROOT / path).read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", ["gateway/web/make/empty.js", "demo.sh"])
def test_the_first_prompts_have_no_unknown_word(path: str) -> None:
    words = vocabulary.of(sources.DEMO_MODEL)
    text = (ROOT / path).read_text(encoding="utf-8")
    prompts = re.findall(r'"(an? [a-z ]+ background)"', text)
    assert words is not None and len(prompts) == 3
    assert [words.unknown_words(prompt) for prompt in prompts] == [[], [], []]


def test_the_files_are_small_and_have_their_notice() -> None:
    files: list[Path] = [path for path in sources.DEMO_MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
    assert "Permission is hereby granted" in (sources.DEMO_MODEL / "NOTICE.md").read_text()
