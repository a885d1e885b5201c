"""The result records of a job, one a picture, as they go into the log; and why there is none."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gpu_worker.contract.job import Job, Outcome, result_record
from gpu_worker.contract.validation_errors import Refusal, error_text
from gpu_worker.output import infotext
from gpu_worker.pipeline_api import GeneratedImage, OutOfMemory
from gpu_worker.store.result_log import RecordTooLong

OWN_CHUNK = infotext.PROGRAM
"""The PNG text chunk that holds the whole record but the picture, as JSON."""


def error_message(error: Exception) -> str:
    """What the record of a job says that has ended so."""
    if isinstance(error, MemoryError):
        return "out of memory: the process has no room for such a picture; try a smaller one"
    is_known = isinstance(error, (OutOfMemory, Refusal, RecordTooLong))
    return error_text(error if is_known else f"{type(error).__name__}: {error}")


def outcome_records(
    job: Job,
    outcome: Outcome,
    errors: list[str],
    pictures: list[GeneratedImage],
    said: dict[str, Any],
    *,
    texts: bool = True,
) -> list[dict[str, Any]]:
    """All records of a job: one a picture, or the one that says why there is none.

    Raises:
        MemoryError: the pictures are too large to be encoded here.
    """
    if pictures:
        return image_records(job, pictures, said, texts=texts)
    facts = said | {"image_index": 0, "num_images": 1}
    return [result_record(job, outcome=outcome, errors=errors, data=None, facts=facts)]


def image_records(
    job: Job, pictures: list[GeneratedImage], said: dict[str, Any], *, texts: bool = True
) -> list[dict[str, Any]]:
    """One record for each picture of a job that has succeeded.

    Args:
        texts: whether the PNG itself says how it was made.
    """
    records = []
    for place, picture in enumerate(pictures):
        facts = said | picture.facts | {"image_index": place, "num_images": len(pictures)}
        facts["width"], facts["height"] = picture.image.size
        facts["pixels_sha256"] = pixels_sha256(picture.image)
        record = result_record(job, outcome=Outcome.SUCCEEDED, errors=[], data=None, facts=facts)
        said_in_it = _texts(record, _parameters(job, record, picture)) if texts else None
        encoded = encode_png(picture.image, said_in_it)
        record["data"] = base64.b64encode(encoded).decode("ascii")
        records.append(record)
    return records


def pixels_sha256(image: Image.Image) -> str:
    """Of the ASCII text `MODE WIDTHxHEIGHT`, a line feed, and the pixels row by row from the top,
    as Pillow's `tobytes` gives them: the picture itself, whatever the PNG's compression is."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode("ascii"))
    digest.update(image.tobytes())
    return digest.hexdigest()


def _parameters(job: Job, record: dict[str, Any], picture: GeneratedImage) -> str | None:
    """What is not drawn has the text of what it was made of, where that had one."""
    return picture.parameters if job.request.upscale is not None else infotext.parameters(record)


def _texts(record: dict[str, Any], parameters: str | None) -> dict[str, str]:
    whole = {key: value for key, value in record.items() if key != "data"}
    # ASCII only, so that the chunk is a plain tEXt, which every reader knows.
    own = {OWN_CHUNK: json.dumps(whole)}
    return own if parameters is None else {"parameters": parameters, **own}


def encode_png(image: Image.Image, texts: Mapping[str, str] | None = None) -> bytes:
    """The PNG. Level 1: level 6 costs a third more time for 7 % fewer bytes.

    Args:
        texts: keyword to text; Latin-1 becomes a tEXt chunk, anything else iTXt (PNG, 11.3.3).
    """
    info = PngInfo()
    for keyword, text in (texts or {}).items():
        info.add_text(keyword, text)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1, pnginfo=info)
    return buffer.getvalue()
