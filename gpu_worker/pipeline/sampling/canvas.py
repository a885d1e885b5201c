"""The size of a job's pictures, and the pictures that came with it brought to that size.

Knows no pipeline's arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from gpu_worker.contract import output_size
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, unsupported
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

    @classmethod
    def for_request(
        cls, loaded: LoadedModel, request: GenerationRequest, images: InputImages
    ) -> Canvas:
        """The size that a request asks for; without sizes that of its image, or the model's own.

        Raises:
            MissingImage: an image is gone or cannot be read.
            Unsupported: the pipeline draws no such width or height.
        """
        multiple = loaded.side_multiple_px()
        for name in ("width", "height"):
            value = getattr(request, name)
            if value is not None and value % multiple:
                reason = f"draws multiples of {multiple} pixels"
                raise unsupported(name, value, loaded.pipe, reason)
        if request.image is None:
            side = loaded.default_side_px()
            return cls(request.width or side, request.height or side)
        image = images.picture(request.image)
        size = output_size.image_to_image_size(request, image.size, multiple)
        mask = None
        if request.mask_image is not None:
            mask = _resize(images.mask(request.mask_image), size, Image.Resampling.NEAREST)
        return cls(*size, _resize(image, size, Image.Resampling.LANCZOS), mask)


def _resize(picture: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, how)
