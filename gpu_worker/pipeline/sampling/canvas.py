"""The size of a job's pictures, and the pictures that came with it brought to that size.

Knows no pipeline's arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from gpu_worker.contract import output_size
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, NotSupported
from gpu_worker.pipeline.sampling.input_images import InputImages


@dataclass(frozen=True)
class Canvas:
    """`width` and `height` in pixels; `image` (RGB) and `mask` (L, white is painted anew) have
    exactly that size."""

    width: int
    height: int
    image: Image.Image | None = None
    mask: Image.Image | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.width, self.height

    def fitted(self, picture: Image.Image) -> Image.Image:
        """The picture in this size; not cropped, so another aspect ratio is stretched."""
        return _resize(picture, (self.width, self.height), Image.Resampling.LANCZOS)


def of(loaded: LoadedModel, request: GenerationRequest, inputs: InputImages) -> Canvas:
    """What a request asks for; without sizes those of its picture, or the model's own.

    Raises:
        MissingPicture: a picture is gone or cannot be read.
        NotSupported: the pipeline draws no such width or height.
    """
    multiple = loaded.side_multiple_px()
    for name in ("width", "height"):
        asked = getattr(request, name)
        if asked is not None and asked % multiple:
            why = f"draws multiples of {multiple} pixels"
            raise NotSupported(name, asked, loaded.pipe, why)
    if request.image is None:
        side = loaded.default_side_px()
        return Canvas(request.width or side, request.height or side)
    image = inputs.picture(request.image)
    width, height = output_size.image_to_image_size(request, image.size, multiple)
    mask = None
    if request.mask_image is not None:
        nearest = Image.Resampling.NEAREST
        mask = _resize(inputs.mask(request.mask_image), (width, height), nearest)
    image = _resize(image, (width, height), Image.Resampling.LANCZOS)
    return Canvas(width, height, image, mask)


def _resize(picture: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, how)
