"""The recipe end to end in small: scenes, words, sprites' composition, training steps, export."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from recipe.images import compose, nouns, scenes, sprites
from recipe.model import export, networks, tokens
from recipe.training import denoiser, judge, muon, pace, replicas, vae

SIDE = 24


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with sprites that need no download: a disc of its own shade for each noun."""
    folder = tmp_path_factory.mktemp("state")
    grid = np.arange(SIDE) - (SIDE - 1) / 2
    disc = (grid[:, None] ** 2 + grid**2 < (SIDE / 2) ** 2).astype(np.uint8)
    rendered = np.zeros((len(sprites.STYLES), len(nouns.nouns()), SIDE, SIDE, 4), dtype=np.uint8)
    for number in range(len(nouns.nouns())):
        rendered[:, number] = disc[..., None] * np.array(
            [number % 256, 90, 200, 255], dtype=np.uint8
        )
    np.save(folder / "sprites.npy", rendered)
    return folder


def some_scenes(count: int, from_held_out: bool = False) -> list[scenes.Scene]:
    rng = random.Random(3)
    return [scenes.random_scene(rng, from_held_out=from_held_out) for _ in range(count)]


def test_there_are_enough_nouns_and_styles_and_no_emoji_twice() -> None:
    entries = nouns.catalogue().values()
    assert len(entries) >= 250 and len(sprites.STYLES) >= 2
    assert len({nouns.codepoints(entry.emoji) for entry in entries}) == len(entries)


def test_a_synonym_belongs_to_one_noun_and_is_none_itself() -> None:
    assert set(nouns.same_words()) & set(nouns.nouns()) == set()
    assert nouns.same_words()["puppies"] == "dog"


def test_the_training_sees_nothing_that_is_held_out() -> None:
    assert not any(scenes.held_out(scene) for scene in some_scenes(500))
    assert all(scenes.held_out(scene) for scene in some_scenes(100, from_held_out=True))


def test_a_tenth_of_the_pairs_is_held_out_in_either_order() -> None:
    words = nouns.nouns()
    pairs = [(first, second) for first in words[:60] for second in words[60:120]]
    held_out = [scenes.held_out(scenes.Scene(pair, relation="above")) for pair in pairs]
    reverse = [scenes.held_out(scenes.Scene(pair[::-1], relation="above")) for pair in pairs]
    assert held_out == reverse and 0.08 < np.mean(held_out) < 0.12


def test_captions_say_all_that_a_scene_has() -> None:
    scene = scenes.Scene(("owl",), "flat", ("red", "blue"), tint="green", size="small")
    expected = "a small green owl, flat, on a red and blue background"
    assert scenes.caption(scene) == expected
    pair = scenes.Scene(("apple", "cat"), relation="left of")
    assert scenes.subject(pair) == "an apple left of a cat"


def test_each_word_is_one_token_and_every_caption_fits() -> None:
    tokenizer = tokens.model_tokenizer()
    words = [word for word in tokens.vocabulary() if word != "3d"]
    assert [word for word in words if len(tokenizer(word).input_ids) != 3] == []
    rng = random.Random(4)
    captions = [scenes.training_caption(scene, rng) for scene in some_scenes(500)]
    assert max(len(tokenizer(text).input_ids) for text in captions) <= tokens.MAX_TOKENS


def test_synonyms_share_the_vector_of_their_noun() -> None:
    tokenizer = tokens.model_tokenizer()
    embedding = networks.build_text_encoder(tokenizer).get_input_embeddings()
    tokens.share_meanings(embedding, tokenizer, tokens.meanings())
    kitten, cat = (tokenizer(word).input_ids[1] for word in ("kitten", "cat"))
    assert kitten != cat and torch.equal(embedding.weight[kitten], embedding.weight[cat])


def test_a_scene_is_drawn_where_and_as_it_says(state: Path) -> None:
    composer = compose.Composer(sprites.load(state))
    scene = scenes.Scene(("cat",), background=("yellow",), place="on the left")
    image = np.asarray(composer.draw(scene, random.Random(0)), dtype=int)
    yellow = np.array(scenes.BACKGROUNDS["yellow"])
    foreign = np.abs(image - yellow).max(axis=-1) > 20
    assert foreign[:, :48].sum() > 10 * foreign[:, 60:].sum() and not foreign[:, -8:].any()
    two = scenes.Scene(("cat",), background=("red", "blue"))
    assert judge.background_of(composer.draw(two, random.Random(0)), 2) == ("red", "blue")


def test_a_recoloured_sprite_has_the_colour_and_its_transparency() -> None:
    sprite = np.zeros((4, 4, 4), dtype=np.uint8)
    sprite[:2] = (120, 100, 90, 255)
    blue = compose.recolor(sprite, scenes.TINTS["blue"])
    assert (blue[..., 3] == sprite[..., 3]).all()
    assert (blue[:2, :, 2] > blue[:2, :, 0] + 60).all()


def test_orthogonal_has_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(muon.orthogonal(torch.randn(40, 24)))
    assert values.min() > 0.3 and values.max() < 1.5


def _fit(replica: replicas.Replica) -> None:
    """Learn the identity on four inputs; each replica has its own two."""
    inputs = torch.eye(20)[replica.rank * 10 : replica.rank * 10 + 10]
    for _ in range(150):
        replica.step(lambda: (replica.shared.network(inputs) - inputs).square().mean(), 0.02, 0.5)


@pytest.mark.parametrize("count", [1, 2])
def test_replicas_learn_from_each_others_part(count: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        shared = replicas.SharedWeights(torch.nn.Linear(20, 20), count)
        replicas.run(_fit, shared)
    finally:
        torch.set_num_threads(threads)
    parts = torch.eye(20)[: 10 * count]
    assert shared.steps == 150
    assert (shared.network(parts) - parts).square().mean() < 0.01
    assert (shared.average(parts) - parts).square().mean() < 0.01


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    shared = replicas.SharedWeights(torch.nn.Linear(20, 20), 1)
    replicas.run(_fit, shared)
    pace.save(tmp_path / "run.pt", shared.state())
    again = replicas.SharedWeights(torch.nn.Linear(20, 20), 1)
    again.restore(torch.load(tmp_path / "run.pt", weights_only=True))
    assert again.steps == 150
    assert torch.equal(again.network.weight, shared.network.weight)
    assert torch.equal(again.average.bias, shared.average.bias)


def test_whitening_changes_latents_and_not_what_is_decoded() -> None:
    torch.manual_seed(0)
    network = networks.build_vae().eval()
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    before = vae.reconstruct(network, images)
    vae.whiten(network, images)
    with torch.no_grad():
        latents = network.encode(images).latent_dist.mode()
    assert torch.allclose(vae.reconstruct(network, images), before, atol=1e-3)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=0.01)


def test_times_reach_both_ends() -> None:
    times = denoiser.random_times(networks.build_scheduler().alphas_cumprod, 4000)
    assert times.min() < 20 and times.max() > 980 and times.max() < 1000


def test_the_stages_train_resume_and_write_a_model(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae, "HELD_OUT_IMAGES", 8)
    monkeypatch.setattr(denoiser, "FIRST_LATENTS", 8)
    monkeypatch.setattr(denoiser, "sample_prompts", lambda: ["a cat"])
    threads = torch.get_num_threads()
    try:
        vae.train(vae.VaePlan(state, minutes=0.02), count=1)
        denoiser.train(denoiser.DenoiserPlan(state, minutes=0.01), count=1)
        first = torch.load(state / "denoiser.pt", weights_only=True)["progress"]
        more = float(first[1]) / 60 + 0.01
        denoiser.train(denoiser.DenoiserPlan(state, minutes=more), count=1)
        second = torch.load(state / "denoiser.pt", weights_only=True)["progress"]
    finally:
        torch.set_num_threads(threads)
    assert "dB" in capsys.readouterr().out and second[0] > first[0] > 0
    assert list(state.glob("unet-*.png"))
    export.write_model(denoiser.trained(state), state / "model")
    assert "cat" in json.loads((state / "model/vocabulary.json").read_text())["things"]
    pipeline = StableDiffusionPipeline.from_pretrained(state / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert export.draw(pipeline, "a cat", seed=1, steps=2).size == (96, 96)
    weights = sum(path.stat().st_size for path in (state / "model").rglob("*.safetensors"))
    assert weights < 30e6
    configs = [path.read_text() for path in (state / "model").glob("*/config.json")]
    assert len(configs) == 3 and not any(str(state) in config for config in configs)
    further = denoiser.DenoiserPlan(state / "further", 0.0, start=state / "model")
    further.state.mkdir()
    (further.state / "sprites.npy").symlink_to(state / "sprites.npy")
    denoiser.train(further, count=1)
    again = denoiser.trained(further.state).unet.conv_in.weight
    assert torch.equal(again, pipeline.unet.conv_in.weight)


def test_the_judge_trains_and_gives_a_verdict_on_each_image(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "HELD_OUT_IMAGES", 10)
    threads = torch.get_num_threads()
    try:
        judge.train(state, minutes=0.01, count=1)
    finally:
        torch.set_num_threads(threads)
    network = judge.load(state / "judge.safetensors")
    composer = compose.Composer(sprites.load(state))
    rng = random.Random(0)
    examples = [scene for scene in some_scenes(200, True) if len(scene.background) == 1][:20]
    images = [composer.draw(scene, rng) for scene in examples]
    verdicts = judge.judge(network, images, examples)
    assert [len(each.nouns) for each in verdicts] == [len(scene.nouns) for scene in examples]
    rates = judge.rates(examples, verdicts)
    assert rates["background"] > 0.9 and set(rates) <= {
        "noun",
        "pair",
        "recolouring",
        "background",
        "style",
    }
