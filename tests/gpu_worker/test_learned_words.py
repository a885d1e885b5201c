"""Words of textual inversions: how they are found, what files hold them, what a record says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.adapters.learned_words import LearnedWords
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.pipeline_bench import Bench, write_library

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WIDTH = 32

SHAPES = {
    "flat": (WIDTH,),
    "wrapped": (1, 2, WIDTH),
    "column": (3, 1, WIDTH),
    "empty": (0, WIDTH),
    "cube": (2, 2, WIDTH),
    "scalar": (),
    "table": (5000, WIDTH),
}
VECTORS = {"flat": 1, "wrapped": 2, "column": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words")
    models = path / "models"
    tiny_models.build().save_pretrained(models / "sd")
    tiny_adapters.build_xl().save_pretrained(models / "xl")
    torch.manual_seed(3)
    files: dict[str, dict[str, torch.Tensor]] = {
        name: {"emb_params": torch.randn(shape)} for name, shape in SHAPES.items()
    }
    files["whole"] = {"emb_params": torch.ones(2, WIDTH, dtype=torch.int32)}
    files["Hands"] = {"Bad-Hands": torch.randn(2, WIDTH)}
    files["hands5"] = {"bad-hands-5": torch.randn(4, WIDTH)}
    files["circle"] = {"circle": torch.randn(3, WIDTH)}
    files["blank"] = {"  ": torch.randn(1, WIDTH)}
    files["uneven"] = {"clip_l": torch.randn(2, WIDTH), "clip_g": torch.randn(3, WIDTH)}
    for name, tensors in files.items():
        save_file(tensors, models / f"{name}.safetensors")
    table: dict[str, dict[str, Any]] = {name: {"source": f"{name}.safetensors"} for name in files}
    table["Late"] = {"source": "flat.safetensors", "token": "late  night"}
    table["again"] = {"source": "flat.safetensors", "token": "CIRCLE"}
    write_library(path, embeddings=table)
    return path


@pytest.fixture(scope="module")
def sd(folder: Path) -> Bench:
    return Bench(folder, "sd")


@pytest.fixture(scope="module")
def xl(folder: Path) -> Bench:
    return Bench(folder, "xl")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", "a 1"),
        ("CAT, cat. (Cat)", "1, 1. (1)"),
        ("category concat cat_a", "category concat cat_a"),
        ("cat-eyed", "cat-eyed"),
        ("bad-hands bad-hands-5 bad-hands-6", "2 3 bad-hands-6"),
        ("v1 v1.5 v1. v1", "5 v1.5 5. 5"),
        ("<x><X>big<x>", "44big4"),
        ("late \n NIGHT late", "6 late"),
        ("Cafe\u0301", "7"),
    ],
)
def test_words_are_whole_and_the_longest_counts(text: str, expected: str) -> None:
    tokens = {"cat": "1", "bad-hands": "2", "Bad-Hands-5": "3", "<x>": "4", "v1": "5"}
    tokens |= {"late night": "6", "café": "7"}
    for order in (tokens, dict(reversed(tokens.items()))):
        assert LearnedWords(order).expand(text) == expected


@pytest.mark.parametrize(
    ("names", "prompt", "tokens"),
    [
        (["Hands"], "red bad-hands circle", 4),
        (["Hands"], "red BAD-HANDS, (bad-hands:1.2) circle", 7),
        (["Hands", "hands5"], "bad-hands-5 bad-hands red", 7),
        (["hands5", "Hands"], "Bad-Hands-5 Bad-Hands red", 7),
        (["circle"], "a red circle", 5),  # a word that the vocabulary has too
        (["Late"], "a late night circle", 3),
        *(([name], f"a {name.upper()} circle", 2 + count) for name, count in VECTORS.items()),
    ],
)
def test_all_vectors_of_a_word_count(sd: Bench, names: list[str], prompt: str, tokens: int) -> None:
    image = sd.make(prompt=prompt, embeddings=names)[0]
    assert image.metadata["prompt_tokens"] == tokens
    assert "warnings" not in image.metadata
    assert image.image.tobytes() == sd.pixels(prompt=prompt.lower(), embeddings=names)
    assert image.image.tobytes() != sd.pixels(prompt=prompt)


def test_each_encoder_reads_its_own_vectors(xl: Bench) -> None:
    image = xl.make(prompt="a uneven circle", embeddings=["uneven"])[0]
    assert image.metadata["prompt_tokens"] == 5  # the second encoder has three vectors
    hires = {"hires": {"scale": 2.0, "strength": 0.5}, "embeddings": ["uneven"]}
    assert xl.pixels(prompt="a uneven circle", **hires) == xl.pixels(
        prompt="a UNEVEN circle", **hires
    )


def test_the_end_of_a_text_is_pooled_also_behind_a_word(xl: Bench) -> None:
    """Old configurations say `eos_token_id` 2, for which CLIP takes the highest id."""
    own = {
        part: part.eos_token_id
        for encoder in (xl.pipe.text_encoder, xl.pipe.text_encoder_2)
        for part in encoder.modules()
        if hasattr(part, "eos_token_id")
    }
    asked = {"prompt": "circle uneven red", "embeddings": ["uneven"]}
    before = xl.pixels(**asked)
    for part in own:
        part.eos_token_id = 2
    try:
        assert own and xl.pixels(**asked) == before
        assert {part.eos_token_id for part in own} == {2}
    finally:
        for part, identifier in own.items():
            part.eos_token_id = identifier


def test_a_word_in_neither_prompt_is_reported(sd: Bench) -> None:
    image = sd.make(prompt="a Hands circle", embeddings=["Hands", "flat"], negative_prompt="flat")
    assert image[0].metadata["embeddings_unused"] == ["Hands"]
    assert image[0].metadata["warnings"] == [
        "embeddings: 'Hands' has no effect, because its word 'Bad-Hands' is in neither prompt"
    ]


def test_one_word_for_two_embeddings_is_refused(sd: Bench) -> None:
    with pytest.raises(Unsupported, match=r"^embeddings: .* the word 'CIRCLE' for two of these"):
        sd.make(embeddings=["circle", "again"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", r"the tensor 'emb_params' must hold vectors .* its shape is \(0, 32\)"),
        ("cube", r"must hold vectors .* its shape is \(2, 2, 32\)"),
        ("scalar", r"must hold vectors .* its shape is \(\)"),
        ("table", "holds 5000 vectors; a textual inversion has at most 1024"),
        ("whole", "must hold fractions; its type is I32"),
        ("blank", "has an empty word; set `token`"),
    ],
)
def test_a_file_of_another_shape_is_reported_before(sd: Bench, name: str, sentence: str) -> None:
    about = sd.ours.describe()
    assert name not in (about.embeddings or []) and name not in about.embedding_words
    with pytest.raises(ModelsError, match=rf"^embeddings\.{name}: .*{sentence}"):
        sd.make(prompt=f"a {name}", embeddings=[name])
    assert about.errors["embeddings"][name].startswith(f"embeddings.{name}: ")


def test_the_description_has_words_and_vectors(sd: Bench) -> None:
    words = sd.ours.describe().model_dump()["embedding_words"]
    assert words["Hands"] == {"word": "Bad-Hands", "vectors": 2}
    assert words["Late"] == {"word": "late night", "vectors": 1}
    assert words["uneven"] == {"word": "uneven", "vectors": 3}
    assert {name: words[name]["vectors"] for name in VECTORS} == VECTORS


@pytest.mark.parametrize(
    ("prompt", "sentences"),
    [
        ("a cat", 0),
        ("breakfast, a Break, [plain] (word:1.2) 12:30", 0),
        ("a cat <lora:pixel:0.8>", 1),
        ("a cat BREAK a dog", 1),
        ("a [cat:dog:0.5] and a [hat::10] BREAK", 3),
        ("a [cat|dog]", 1),
    ],
)
def test_foreign_syntax_is_reported(sd: Bench, prompt: str, sentences: int) -> None:
    metadata = sd.make(prompt=prompt)[0].metadata
    warnings = metadata.get("warnings", [])
    assert len(warnings) == sentences
    assert all(each.startswith("prompt: '") and "plain text" in each for each in warnings)
