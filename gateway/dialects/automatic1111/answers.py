"""Builds the answer of a generation from its records: images, parameters and info."""

from __future__ import annotations

import binascii
import io
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gateway.dialects.automatic1111.door import Door
from gateway.dialects.automatic1111.errors import GenerationFailed
from gateway.dialects.automatic1111.translation import image_preparation, infotext
from gateway.errors import ResultDeleted
from gateway.jobs.job_entry import JobState, JobView
from gpu_worker.contract import image_codec

VERSION = "stable-diffusion-environment"

_HEAD_CHARS = 1 << 20
"""Base64 of the start of a PNG, which has the texts; a multiple of 4. Two prompts of 4000
characters are in two texts, with up to 12 bytes a character."""


@dataclass(frozen=True)
class Paste:
    """Where a generated part belongs: its box in the sent image, and the digests of two images."""

    box: image_preparation.Box
    original: str
    share: str


@dataclass(frozen=True)
class Waiting:
    """What the answer needs of the request.

    `parameters` is the request as it is echoed. `prompt` and `negative_prompt` are as sent.
    """

    parameters: dict[str, Any]
    prompt: str
    negative_prompt: str
    send_images: bool = True
    paste: Paste | None = None


def generation(door: Door, uuid: str, waiting: Waiting) -> bytes:
    """Return the JSON of the answer.

    Raises:
        GenerationFailed: the job has failed.
        ResultDeleted: its result was deleted while the client waited.
    """
    view = door.services.lookup.view(uuid)
    if view.state is JobState.FAILED:
        raise GenerationFailed("; ".join(view.errors) or "the job has failed")
    records, images = _results(door, uuid, view, waiting)
    info = _info(view, records, images, waiting)
    return orjson.dumps(
        {
            "images": images if waiting.send_images else [],
            "parameters": waiting.parameters,
            "info": orjson.dumps(info).decode(),
        }
    )


def images_of(door: Door, uuid: str) -> list[tuple[dict[str, Any], str]]:
    """Return record and base64 PNG of each image of a job. Raises ResultDeleted."""
    index = door.services.index
    pairs = []
    for entry in index.find_all(uuid):
        line, data = index.read_without_data(entry), index.read_data(entry)
        if line is None or data is None:
            raise ResultDeleted(uuid)
        if data:
            pairs.append((orjson.loads(line), data.decode()))
    return pairs


def _results(
    door: Door, uuid: str, view: JobView, waiting: Waiting
) -> tuple[list[dict[str, Any]], list[str]]:
    if view.state is not JobState.SUCCEEDED:
        return [], []
    pairs = images_of(door, uuid)
    records, images = [record for record, _ in pairs], [data for _, data in pairs]
    if waiting.paste is not None:
        with door.preparation.turn():
            images = _pasted(door, uuid, images, waiting.paste)
    return records, images


def _pasted(door: Door, uuid: str, images: list[str], paste: Paste) -> list[str]:
    """Return the sent image with each generated part in it, and the part's own texts."""
    original, share = (_input(door, uuid, digest) for digest in (paste.original, paste.share))
    original, share = original.convert("RGB"), share.convert("L")
    whole = []
    for data in images:
        part = image_codec.decode(binascii.a2b_base64(data))
        image = image_preparation.paste_back(part, original, share, paste.box)
        whole.append(to_base64(image, parameters_of(data)))
    return whole


def _input(door: Door, uuid: str, digest: str) -> Image.Image:
    """Return an image that was stored with the job. Raises ResultDeleted."""
    try:
        with door.services.inputs.open(uuid, digest.removeprefix("sha256:")) as file:
            return image_codec.decode(file.read())
    except OSError:
        raise ResultDeleted(uuid) from None


def to_base64(image: Image.Image, parameters: str | None = None) -> str:
    """Return base64 of the image as PNG.

    Args:
        parameters: A1111's text of it, if it has one.
    """
    return binascii.b2a_base64(to_png(image, parameters), newline=False).decode()


def to_png(image: Image.Image, parameters: str | None = None) -> bytes:
    """Return the image as PNG; see to_base64()."""
    texts = PngInfo()
    if parameters:
        texts.add_text("parameters", parameters)
    content = io.BytesIO()
    image.save(content, format="PNG", pnginfo=texts, compress_level=1)
    return content.getvalue()


def parameters_of(data: str) -> str:
    """Return A1111's text of a PNG in base64; nothing if it has none. No pixel is decoded."""
    head = binascii.a2b_base64(data[:_HEAD_CHARS])
    with Image.open(io.BytesIO(head), formats=("PNG",)) as image:
        text = image.info.get("parameters", "")
    return text if isinstance(text, str) else ""


_CONSTANT: dict[str, Any] = {
    "subseed_strength": 0.0,
    "restore_faces": False,
    "face_restoration_model": None,
    "sd_vae_hash": None,
    "seed_resize_from_w": -1,
    "seed_resize_from_h": -1,
    "extra_generation_params": {},
    "index_of_first_image": 0,
    "styles": [],
    "is_using_inpainting_conditioning": False,
    "version": VERSION,
}
"""Members of `Processed.js()` for what is not here."""


def _info(
    view: JobView, records: list[dict[str, Any]], images: list[str], waiting: Waiting
) -> dict[str, Any]:
    """Return the members of `Processed.js()`, and what the service adds: uuid and notes."""
    first, sent = records[0] if records else {}, waiting.parameters
    seeds = [record.get("seed", -1) for record in records] or [sent.get("seed", -1)]
    subseed, texts = sent.get("subseed", -1), [parameters_of(data) for data in images]
    sampler = infotext.parameters(texts[0]).get("Sampler") if texts else None
    return {
        "prompt": waiting.prompt,
        "all_prompts": [waiting.prompt] * len(seeds),
        "negative_prompt": waiting.negative_prompt,
        "all_negative_prompts": [waiting.negative_prompt] * len(seeds),
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": subseed,
        "all_subseeds": [subseed] * len(seeds),
        "width": first.get("width", sent.get("width")),
        "height": first.get("height", sent.get("height")),
        "sampler_name": sampler or sent.get("sampler_name") or "Automatic",
        "cfg_scale": first.get("guidance_scale", sent.get("cfg_scale")),
        "steps": first.get("num_inference_steps", sent.get("steps")),
        "batch_size": sent.get("batch_size", 1),
        "sd_model_name": first.get("model") or "",
        "sd_model_hash": (first.get("weights_sha256") or "")[:10],
        "sd_vae_name": first.get("vae"),
        "denoising_strength": first.get("strength", sent.get("denoising_strength")),
        "infotexts": texts,
        "job_timestamp": _timestamp(view.created_time),
        "clip_skip": (first.get("clip_skip") or 0) + 1,  # they count the layer that is taken
        **_CONSTANT,
        "sde_uuid": view.uuid,
        "sde_state": view.state.value,
        "sde_notes": first.get("warnings", []),
    }


def _timestamp(created_time: str) -> str:
    """Return a time of a record as A1111 writes it: YYYYMMDDHHMMSS."""
    return datetime.fromisoformat(created_time).strftime("%Y%m%d%H%M%S")
