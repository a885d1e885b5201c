"""Chooses the size of a job's images, and resizes the input images to it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from gpu_worker.contract import output_size
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.inputs.input_images import InputImages
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, unsupported


@dataclass(frozen=True)
class Canvas:
    """The size of a job's images in pixels, with the input images at that size.

    `image` is RGB. `mask` has mode L, and its white pixels are painted.
    """

    width: int
    height: int
    image: Image.Image | None = None
    mask: Image.Image | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        return self.width, self.height

    def fit(self, image: Image.Image) -> Image.Image:
        """Return the image at this size; another aspect ratio is stretched, not cropped."""
        return _resize(image, (self.width, self.height), Image.Resampling.LANCZOS)

    def masked_input(
        self, request: GenerationRequest, images: InputImages, size: tuple[int, int]
    ) -> tuple[Image.Image, Image.Image] | None:
        """Return the request's image (RGB) and mask (L) in a size; None without a mask.

        Args:
            size: of the generated image, which a second pass makes larger than the canvas.

        Raises:
            MissingImage: an image is gone or cannot be read.
        """
        if request.image is None or request.mask_image is None:
            return None
        image, mask = self.image, self.mask
        if image is None or mask is None or size != self.size:
            image, mask = images.image(request.image), images.mask(request.mask_image)
        return (
            _resize(image, size, Image.Resampling.LANCZOS),
            _resize(mask, size, Image.Resampling.NEAREST),
        )

    @classmethod
    def for_request(
        cls, loaded: LoadedModel, request: GenerationRequest, images: InputImages
    ) -> Canvas:
        """Return the canvas for a request.

        Without width and height it has the size of the image, else the model's native size.

        Raises:
            MissingImage: an image is missing or cannot be read.
            Unsupported: the pipeline does not support the width or height.
        """
        multiple = loaded.side_multiple_px()
        for name in ("width", "height"):
            value = getattr(request, name)
            if value is not None and value % multiple:
                reason = f"needs a multiple of {multiple} pixels"
                raise unsupported(name, value, loaded.pipe, reason)
        if request.image is None:
            side = loaded.default_side_px()
            return cls(request.width or side, request.height or side)
        image = images.image(request.image)
        size = output_size.image_to_image_size(request, image.size, multiple)
        mask = None
        if request.mask_image is not None:
            mask = _resize(images.mask(request.mask_image), size, Image.Resampling.NEAREST)
        return cls(*size, _resize(image, size, Image.Resampling.LANCZOS), mask)


def _resize(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, how)
