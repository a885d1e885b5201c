"""Weights and long prompts: what the words become, on tiny models and through the engine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from gpu_worker import pipeline
from gpu_worker.contract import prompt_weights
from gpu_worker.contract.prompt_weights import Fragment
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.sampling import prompt_embedding
from tests.support import layer_offload
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.builders.tiny_families import FAMILIES
from tests.support.pipeline_jobs import ignore, job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    ("prompt", "fragments"),
    [
        ("a red circle", [("a red circle", 1.0)]),
        ("", [("", 1.0)]),
        ("a (red:1.3) circle", [("a ", 1.0), ("red", 1.3), (" circle", 1.0)]),
        ("(a cat (with a hat:2):0.5)", [("a cat ", 0.5), ("with a hat", 1.0)]),
        ("a (plain) word", [("a (plain) word", 1.0)]),
        ("((twice)) (x:1)", [("((twice)) x", 1.0)]),
        (r"\(literal:1.3\)", [("(literal:1.3)", 1.0)]),
        ("open (and never closed", [("open (and never closed", 1.0)]),
        ("closed) and :1.3) alone", [("closed) and :1.3) alone", 1.0)]),
        ("time 12:30) ok (a:b)", [("time 12:30) ok (a:b)", 1.0)]),
        ("(a (b) c:1.5)", [("a (b) c", 1.5)]),
        ("(less:-0.5)", [("less", -0.5)]),
    ],
)
def test_weights_are_read(prompt: str, fragments: list[tuple[str, float]]) -> None:
    assert prompt_weights.parse(prompt) == [Fragment(*each) for each in fragments]


@pytest.mark.parametrize(
    ("prompt", "weight"),
    [
        ("(a:99)", r"99\.0"),
        ("(a:-10.5)", r"-10\.5"),
        ("((a:10):10)", r"100\.0"),
        ("((a:10) b:-5)", r"-50\.0"),
    ],
)
def test_a_weight_beyond_reason_is_refused(prompt: str, weight: str) -> None:
    with pytest.raises(Unsupported, match=rf"^prompt: has a weight beyond 10.*\(got {weight}\)"):
        prompt_weights.parse(prompt)
    with pytest.raises(Unsupported, match=r"^negative_prompt: "):
        prompt_weights.parse(prompt, "negative_prompt")


def test_weights_that_are_taken_back_are_no_fault() -> None:
    assert prompt_weights.parse("(((a:10):10):0.1)") == [Fragment("a", 10.0)]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> pipeline.DiffusersPipeline:
    """The built-in model."""
    return pipeline.load(settings(tmp_path_factory.mktemp("words")))


def pixels(ours: pipeline.DiffusersPipeline, **given: Any) -> bytes:
    return ours.generate(job(num_inference_steps=2, **given), ignore)[0].image.tobytes()


def test_a_weight_of_one_changes_nothing_and_another_does(ours: pipeline.DiffusersPipeline) -> None:
    words = "a large {} apple on a blue background"
    plain = pixels(ours, prompt=words.format("red"))
    assert pixels(ours, prompt=words.format("(red:1.0)")) == plain
    heavier = pixels(ours, prompt=words.format("(red:1.4)"))
    assert heavier not in (plain, pixels(ours, prompt=words.format("(red:0.4)")))
    assert pixels(ours, prompt=words.format("red"), negative_prompt="(blurry:1.4)") != plain


def test_weights_are_those_of_compel_itself(ours: pipeline.DiffusersPipeline) -> None:
    from compel import Compel

    assert ours._loaded is not None
    pipe = ours._loaded.pipe
    request = job(prompt="a large (red)1.4 apple").request
    theirs = Compel(tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder)(request.prompt)
    given, said = prompt_embedding.build(pipe, job(prompt="a large (red:1.4) apple").request)
    assert given["prompt_embeds"].equal(theirs)
    assert said == {"prompt_tokens": 4}


def test_a_long_prompt_is_read_to_its_end(ours: pipeline.DiffusersPipeline) -> None:
    long = "a small green star on a white background, " * 9
    made = ours.generate(job(num_inference_steps=2, prompt=long + "red"), ignore)[0]
    other = ours.generate(job(num_inference_steps=2, prompt=long + "blue"), ignore)[0]
    assert made.metadata["prompt_tokens"] == 82
    assert made.image.tobytes() != other.image.tobytes(), "the last word counts"
    assert ours._loaded is not None
    pipe = ours._loaded.pipe
    window = pipe.tokenizer.model_max_length
    given, _ = prompt_embedding.build(pipe, job(prompt=long).request)
    length = window * math.ceil(81 / (window - 2))  # each window has a first and a last token
    assert given["prompt_embeds"].shape[1] == given["negative_prompt_embeds"].shape[1] == length


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_leaves_out_the_last_layers(ours: pipeline.DiffusersPipeline, skip: int) -> None:
    assert ours._loaded is not None
    pipe = ours._loaded.pipe
    for prompt in ("a red (circle:1.0001)",):
        given, _ = prompt_embedding.build(pipe, job(prompt=prompt, clip_skip=skip).request)
        tokens = pipe.tokenizer("a red circle", padding="max_length", return_tensors="pt").input_ids
        layers = pipe.text_encoder(tokens, output_hidden_states=True).hidden_states
        expected = pipe.text_encoder.final_layer_norm(layers[-1 - skip])
        assert given["prompt_embeds"].allclose(expected, atol=2e-3)
    weighted, _ = prompt_embedding.build(
        pipe, job(prompt="a (red:1.2) circle", clip_skip=skip).request
    )
    assert not weighted["prompt_embeds"].allclose(expected, atol=2e-3)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_what_another_family_does_not_read_is_told(name: str) -> None:
    pipe = FAMILIES[name].build()
    long, short = "a small green star " * 200 + "red", "a small green star"
    for prompt, negative, cut in (
        (long, short, {"prompt_cut"}),
        (short, long, {"negative_prompt_cut"}),
        (long, long, {"prompt_cut", "negative_prompt_cut"}),
        (short, short, set()),
    ):
        asked = job(prompt=prompt, negative_prompt=negative).request
        given, said = prompt_embedding.build(pipe, asked)
        assert given == {"prompt": prompt, "negative_prompt": negative}
        assert set(said) == cut
        assert all(rest.endswith("red") and long.endswith(rest) for rest in said.values())


SD_AND_XL = [tiny_models.build, tiny_adapters.build_xl]
ENCODED = [
    {"prompt": "a (red:1.3) circle"},
    {"prompt": "a (red:0.4) circle", "negative_prompt": "(blurry:1.2)", "clip_skip": 1},
    {"prompt": "a small green star on a white background, " * 9 + "red"},
]


@pytest.mark.parametrize("build", SD_AND_XL)
@pytest.mark.parametrize("asked", ENCODED, ids=["weight", "clip_skip", "long"])
def test_prompts_are_encoded_where_offloaded_layers_compute(
    build: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    request = job(**asked).request
    expected, _ = prompt_embedding.build(build(), request)
    pipe = layer_offload.offload(build(), tmp_path)
    assert pipe.text_encoder.device.type == "meta"
    given, _ = prompt_embedding.build(pipe, request)
    assert {name for name in given if not given[name].equal(expected[name])} == set()
    assert given.keys() == expected.keys() and len(given) in (2, 4)
