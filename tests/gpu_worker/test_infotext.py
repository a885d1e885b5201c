"""The text in a PNG, read back by the programs that read it: by their code, or by their rules."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sd_parsers import ParserManager

from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.output.infotext import escape_markers, parameters, sampler, schedule_type, with_size
from gpu_worker.output.result_records import OWN_CHUNK, image_records, pixels_sha256
from gpu_worker.pipeline_api import GeneratedImage
from tests.support.service import running

NASTY = [
    "a cat",
    "two\nlines",
    "\n\n  a blank first line",
    'quotes "here", commas, and: colons',
    "emoji 🦊 and 猫",
    "café",
    "Steps: 3",
    "a house\nSteps: 3, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 8x8",
    "a Negative prompt: inside",
    "a\nNegative prompt: on its own line\nNegative prompt: twice",
    'x, Hashes: {"model": "0"}, Civitai resources: [{}]',
    "carriage\r\nreturn\rhere",
    "\tSteps:3",
    "(weighted:1.3) [less] <lora:none:1>",
]

A1111_PARAM = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""A1111's own (modules/infotext_utils.py)."""

A1111_ORDER = [
    "Steps",
    "Sampler",
    "Schedule type",
    "CFG scale",
    "Seed",
    "Size",
    "Model hash",
    "Model",
    "VAE hash",
    "VAE",
    "Denoising strength",
    "Clip skip",
    "RNG",
    "Eta",
    "Refiner",
    "Refiner switch at",
    "Hires upscale",
    "Hires steps",
    "Hires upscaler",
    "Lora hashes",
    "Version",
]

FACTS = {
    "model": "shapes.v1.safetensors",
    "weights_sha256": "0123456789abcdef" * 4,
    "scheduler": "EulerAncestralDiscreteScheduler",
    "scheduler_config": {"timestep_spacing": "linspace"},
    "num_inference_steps": 20,
    "guidance_scale": 7.5,
    "rng": "cpu",
}


def record(prompt: str = "a cat", negative: str = "", **facts: Any) -> dict[str, Any]:
    """As picture_records makes it."""
    (made,) = records(prompt, negative, **facts)
    return made


def records(prompt: str, negative: str, texts: bool = True, **facts: Any) -> list[dict[str, Any]]:
    asked = {key: facts[key] for key in GenerationRequest.model_fields if key in facts}
    job = Job(
        uuid="00000000-0000-4000-8000-000000000000",
        sequence=1,
        created_time="2026-01-01T00:00:00+00:00",
        request=GenerationRequest(prompt=prompt, negative_prompt=negative, **asked),
    )
    picture = GeneratedImage(Image.new("RGB", (128, 64), "teal"), {"seed": 42})
    return image_records(job, [picture], FACTS | facts, texts=texts)


def opened(made: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(made["data"])))


def civitai(text: str) -> tuple[str, str, dict[str, str]]:
    """By civitai's rules (automatic.metadata.ts): prompt, negative prompt, the details."""
    lines = [line for line in text.split("\n") if line.strip()]
    details = next(line for line in lines if line.startswith("Steps: "))
    lines.remove(details)
    prompt, *negatives = "\n".join(lines).split("Negative prompt:")
    found = {key.strip(): value for key, value in re.findall(r"([^:,]+): ?([^,]*)", details)}
    return prompt.strip(), "".join(negatives).strip(), found


@pytest.mark.parametrize("negative", ["", "blurry", NASTY[1], NASTY[7], NASTY[9]])
@pytest.mark.parametrize("prompt", NASTY)
def test_readers_find_what_was_asked(prompt: str, negative: str) -> None:
    made = record(prompt, negative)
    image = opened(made)
    image.load()
    text = image.text["parameters"]  # type: ignore[attr-defined]

    lines = text.split("\n")
    assert lines[0].strip() and lines[-1].startswith("Steps: 20, Sampler: Euler a, ")
    assert len(A1111_PARAM.findall(lines[-1])) >= 3
    assert [i for i, line in enumerate(lines) if line.startswith("Steps:")] == [len(lines) - 1]
    heads = [line for line in lines if line.strip().startswith("Negative prompt:")]
    assert len(heads) == bool(negative)

    theirs, unwanted, details = civitai(text)
    kept = "\n".join(line for line in escape_markers(prompt).split("\n") if line.strip())
    assert (theirs, unwanted) == (kept, escape_markers(negative))
    assert (details["Seed"], details["CFG scale"], details["Size"]) == ("42", "7.5", "128x64")

    parsed = ParserManager().parse(image)
    assert parsed is not None
    (found,) = parsed.samplers
    assert [each.value for each in found.prompts] == [escape_markers(prompt)]
    assert [each.value for each in found.negative_prompts] == [escape_markers(negative)] * bool(
        negative
    )
    assert found.name == "Euler a"
    assert found.parameters["seed"] == "42"
    assert found.parameters["steps"] == "20"
    assert found.parameters["cfg_scale"] == "7.5"
    assert found.parameters["scheduler"] == "Uniform"
    assert found.model is not None
    assert (found.model.name, found.model.hash) == ("shapes.v1", "0123456789")
    assert parsed.metadata["Size"] == "128x64"


@pytest.mark.parametrize("prompt", [p for p in NASTY[:6] if p == p.strip()])
def test_a_plain_prompt_is_not_touched(prompt: str) -> None:
    assert escape_markers(prompt) == prompt


def test_the_keys_stand_in_their_order() -> None:
    made = record(
        vae="fine",
        image="sha256:" + "0" * 64,
        strength=0.6,
        clip_skip=1,
        eta=0.5,
        hires={"scale": 2.0, "num_inference_steps": 9, "upscaler": "latent"},
        loras=[{"name": "pixel", "weight": 0.8}, {"name": "ink", "weight": 1.0}],
        lora_hashes={"pixel": "a" * 64, "ink": "b" * 64},
        refiner={"name": "xl", "switch_at": 0.8},
        parts_sha256={"vaes/fine": "c" * 64, "refiners/xl": "d" * 64},
    )
    text = opened(made).text["parameters"]  # type: ignore[attr-defined]
    line = text.split("\n")[-1]
    found = dict(A1111_PARAM.findall(line))
    assert list(found) == A1111_ORDER
    assert found["Clip skip"] == "2"
    assert found["Lora hashes"] == '"pixel: aaaaaaaaaaaa, ink: bbbbbbbbbbbb"'
    assert found["VAE hash"] == "c" * 10
    assert found["Refiner"] == "xl [dddddddddd]" and found["Refiner switch at"] == "0.8"
    assert found["Size"] == "64x32" and found["Hires upscaler"] == "Latent"
    assert text.startswith("a cat <lora:pixel:0.8> <lora:ink:1>\n")
    parsed = ParserManager().parse(opened(made))
    assert parsed is not None and parsed.samplers[0].parameters["steps"] == "20"


def test_a_name_breaks_no_line() -> None:
    text = parameters({**FACTS, "prompt": "x", "model": '/models/a, b: "c"\nd.gguf'})
    assert ", Model: a_b_c_d, " in text.replace(" ", " ")


@pytest.mark.parametrize(
    ("scheduler", "config", "name", "schedule"),
    [
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "DPM++ 2M", "Karras"),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "use_exponential_sigmas": True},
            "DPM++ 2M SDE",
            "Exponential",
        ),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "Euler", "SGM Uniform"),
        ("EulerDiscreteScheduler", {"use_beta_sigmas": True}, "Euler", "Beta"),
        ("PNDMScheduler", {"timestep_spacing": "leading"}, "PLMS", None),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, "DDIM", None),
        ("SomethingNewScheduler", {}, "SomethingNew", None),
    ],
)
def test_samplers_have_the_names_that_people_know(
    scheduler: str, config: dict[str, Any], name: str, schedule: str | None
) -> None:
    assert sampler(scheduler, config) == name
    assert schedule_type(name, config) == schedule


def test_a_larger_picture_keeps_the_words_of_what_it_was() -> None:
    text = "Size: 1x1, she said\nSteps: 20, Seed: 42, Size: 128x64, Model: x"
    assert with_size(text, 256, 128) == text.replace("128x64", "256x128")
    twice = f"{text}, Hires upscale: 2, Hires steps: 9"
    assert with_size(twice, 256, 128) == twice, "its size is the first pass's"
    assert with_size("a cat, Size: 1x1", 2, 2) == "a cat, Size: 1x1", "these are words"
    assert with_size(None, 2, 2) is None


def test_our_own_chunk_is_the_record() -> None:
    made = record("猫, Negative prompt: x", "Steps: 1")
    own = json.loads(opened(made).text[OWN_CHUNK])  # type: ignore[attr-defined]
    assert own == {key: value for key, value in made.items() if key != "data"}
    assert own["prompt"] == "猫, Negative prompt: x"
    assert own["pixels_sha256"] == pixels_sha256(opened(made))


def test_texts_can_be_left_out_and_change_no_pixel() -> None:
    (plain,) = records("a cat", "", texts=False)
    assert opened(plain).text == {}  # type: ignore[attr-defined]
    assert plain["pixels_sha256"] == record()["pixels_sha256"]


def test_the_setting_reaches_the_pictures(folder: Path) -> None:
    for value, chunks in (("on", {"parameters", OWN_CHUNK}), ("off", set())):
        with running(folder / value, "gateway", "gpu_worker", SDE_PNG_METADATA=value) as service:
            made = service.result(service.submit("a test", num_inference_steps=1))
        assert set(opened(made).text) == chunks  # type: ignore[attr-defined]
