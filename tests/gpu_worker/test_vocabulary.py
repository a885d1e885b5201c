"""What the built-in model knows, and what a record says of the other words of a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_worker.pipeline.loading import sources, vocabulary
from gpu_worker.pipeline.loading.sources import DEMO_MODEL

KNOWS = ("a", "cat", "on", "ice", "cream", "red", "3d")
WORDS = vocabulary.Vocabulary("emoji", ("cat", "ice cream"), frozenset(KNOWS))


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("", []),
        ("A Cat on RED ice-cream, 3d!", []),
        ("a lighthouse, a cat, a lighthouse", ["lighthouse"]),
        ("Москва is an island", ["москва", "is", "an", "island"]),
        ("don't", ["don't"]),
    ],
)
def test_words_are_compared_without_case_and_named_once(prompt: str, unknown: list[str]) -> None:
    assert WORDS.unknown_words(prompt) == unknown


def test_a_warning_names_the_words() -> None:
    assert WORDS.warnings("a red cat") == []
    sentence = "The built-in model draws emoji. It does not know: lighthouse, dusk."
    assert WORDS.warnings("a lighthouse on dusk") == [sentence]


def test_a_long_prompt_gives_a_short_warning() -> None:
    (sentence,) = WORDS.warnings(" ".join(f"word{k}" for k in range(500)) + " " + "x" * 4000)
    assert sentence.endswith("word7 and 493 more words.") and len(sentence) < 200


def test_a_model_without_the_file_has_no_vocabulary(tmp_path: Path) -> None:
    assert vocabulary.of(tmp_path) is None and vocabulary.of(None) is None


def test_the_built_in_model_knows_its_own_things() -> None:
    words = vocabulary.of(DEMO_MODEL)
    assert words is not None and len(words.things) >= 6
    assert all(words.unknown_words(thing) == [] for thing in words.things)


def test_only_the_built_in_model_has_one() -> None:
    demo = sources.Source("demo", sources.DEMO, DEMO_MODEL)
    copied = sources.Source("mine", sources.DEMO.model_copy(), DEMO_MODEL)
    assert sources.vocabulary_of(demo) is not None and sources.vocabulary_of(copied) is None
