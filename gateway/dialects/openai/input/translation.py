"""Translates an OpenAI request into ours, and the names in our refusals into theirs."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.admission.input_images import InputImageReader
from gateway.dialects.openai.input import masks
from gateway.dialects.openai.input.fields import ImageRequest
from gateway.dialects.openai.input.forms import Form
from gateway.errors import InvalidRequest
from gateway.store.input_store import InputFiles
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported

_SAME = (
    *("negative_prompt", "num_inference_steps", "guidance_scale", "seed", "strength"),
    "scheduler",
)
"""Fields that have the same name and meaning here."""

TRUE_CFG, GUIDANCE = "true_cfg_scale", "guidance_scale"

_THEIRS = {
    "num_images_per_prompt": "n",
    "width": "size",
    "height": "size",
    "mask_image": "mask",
}
"""Their names, by ours. Any other name is the same."""


@dataclass(frozen=True)
class Translator:
    """Makes our requests of theirs. It decodes the images as the native routes do."""

    reader: InputImageReader

    def generation(
        self, request: ImageRequest, model: str | None, true_cfg: str, form: Form | None = None
    ) -> tuple[GenerationRequest, InputFiles]:
        """Return our request, and its images by digest.

        Args:
            model: the name in models.toml; None stands for the default model.
            true_cfg: our field that `true_cfg_scale` stands for, with this model.
            form: has the images of an edit or a variation.

        Raises:
            InvalidRequest: it names every invalid field as the client does.
            TooManyUploads: too many images wait until they are decoded.
        """
        body: dict[str, Any] = {"prompt": request.prompt, "num_images_per_prompt": request.n}
        body |= {name: getattr(request, name) for name in _SAME if _is_sent(request, name)}
        if model is not None:
            body["model"] = model
        if request.true_cfg_scale is not None:
            # With both, our own check says that the model takes one of them.
            body[TRUE_CFG if true_cfg in body else true_cfg] = request.true_cfg_scale
        if request.pixels is not None:
            body["width"], body["height"] = request.pixels
        if request.loras is not None:
            body["loras"] = [lora.model_dump() for lora in request.loras]
        if form is not None:
            body |= self._images(form)
        with their_names():
            return self.reader.request(body)

    def _images(self, form: Form) -> dict[str, str]:
        """Return `image` and, where something is painted again, `mask_image`, as base64."""
        image = _only("image", form.images)
        if image is None:
            raise _invalid("image", "is required")
        mask = _only("mask", form.masks)
        own = masks.of_image(self.reader, image) if mask is None else None
        if mask is not None:
            own = masks.convert(self.reader, mask)
        contents = {"image": image} | ({} if own is None else {"mask_image": own})
        return {name: base64.b64encode(content).decode() for name, content in contents.items()}


@contextlib.contextmanager
def their_names() -> Iterator[None]:
    """Give the fields in a refusal the names that the client knows. Raises InvalidRequest."""
    try:
        yield
    except InvalidRequest as refusal:
        raise InvalidRequest([_renamed(error) for error in refusal.errors]) from None
    except Unsupported as refusal:
        raise InvalidRequest([_renamed(refusal.error)]) from None


def _renamed(error: dict[str, Any]) -> dict[str, Any]:
    field = _THEIRS.get(error["field"], error["field"])
    # The client sent a file, and our value is a text that stands for it.
    return error | {"field": field} | ({"value": None} if field in ("image", "mask") else {})


def _is_sent(request: ImageRequest, name: str) -> bool:
    return getattr(request, name) is not None


def _only(name: str, contents: list[bytes]) -> bytes | None:
    """Return the one file of a name. Raises InvalidRequest for several."""
    if len(contents) > 1:
        raise _invalid(name, f"is sent {len(contents)} times, and the model takes one")
    return contents[0] if contents else None


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest([{"field": field, "message": message, "value": None}])
