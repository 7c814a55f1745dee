"""Several images that one question is about."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from .images import open_image
from .records import ImageLike


class Several(Image.Image):
    """Images of one question, for a backbone of several images; whatever takes one image, as a
    scope encoder does, sees them side by side.

    Raises:
        DataError: one is missing or broken.
    """

    def __init__(self, images: Sequence[ImageLike]) -> None:
        super().__init__()
        self.images = [open_image(image) for image in images]
        size = sum(i.width for i in self.images), max(i.height for i in self.images)
        canvas, left = Image.new("RGB", size), 0
        for image in self.images:
            canvas.paste(image, (left, 0))
            left += image.width
        self.__dict__.update(canvas.__dict__)


def apart(image: ImageLike) -> list[ImageLike]:
    """The single images in ``image``."""
    return list(image.images) if isinstance(image, Several) else [image]
