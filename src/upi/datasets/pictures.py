"""Pictures of any size, grey or coloured, as arrays of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from upi.core.errors import DataError

#: Part of the resized short side that a centre crop keeps: ImageNet's usual 224 of 256.
CROP = 0.875


def _cropped(image: Any, size: int) -> Any:
    """Short side to ``size / CROP``, centre crop of ``size`` x ``size``."""
    from PIL import Image

    scale = int(size / CROP) / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class Form:
    """What the images of a dataset must look like.

    Attributes:
        shape: (channels, height, width); None takes that of the first image.
        size: Side that images are cut to; None leaves them as they are.
        colour: Grey images become coloured ones.
    """

    shape: tuple[int, ...] | None = None
    size: int | None = None
    colour: bool = False

    def pixels(self, image: Any, where: str) -> np.ndarray[Any, Any]:
        """uint8 (C, H, W) of a picture.

        Raises:
            DataError: It has another shape.
        """
        grey = image.mode in ("L", "1", "I;16") and not self.colour
        image = image.convert("L" if grey else "RGB")
        array = np.asarray(image if self.size is None else _cropped(image, self.size))
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if self.shape is not None and array.shape != self.shape:
            raise DataError(f"{where}: expected an image of shape {self.shape}, got {array.shape}")
        return array
