"""Encoded pictures of any kind as 8-bit arrays of one shape.

Guards against what decoders leave to the caller: 16-bit values clipped to white, EXIF rotation, palettes,
CMYK, and grey pictures among coloured ones.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from upi.core.errors import DataError
from upi.data.preprocess import Preprocess
from upi.datasets.lazy import Memory

#: Modes of grey pictures.
GREY = ("1", "L", "LA", "La", "I", "F")

Array = np.ndarray[Any, Any]


#: Pixels of the largest picture that is decoded, under a second and 1 GB. Pillow warns of decompression bombs
#: at 89 million and refuses at twice that, which a file of 60 bytes can ask 2 GB for.
MOST_PIXELS = 8192 * 8192


def is_grey(mode: str) -> bool:
    """Whether pictures of this mode have one channel."""
    return mode in GREY or mode.startswith("I;16")


def opened(source: Any, where: str) -> Any:
    """A picture of Pillow from bytes, a path, or a picture.

    Raises:
        DataError: It cannot be read, or is too large.
    """
    from PIL import Image

    if hasattr(source, "getbands"):
        return source
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        picture = Image.open(io.BytesIO(content))
    except Exception as error:  # Pillow's readers raise many kinds for damaged files, and one for bombs
        raise DataError(f"{where}: not a picture that can be decoded: {error}") from error
    if picture.height * picture.width > MOST_PIXELS:
        raise DataError(
            f"{where}: a picture of {picture.height} x {picture.width} pixels, more than "
            f"{MOST_PIXELS / 1e6:.0f} million; make it smaller first"
        )
    return picture


def _eight_bit(picture: Any, where: str) -> Any:
    """A grey picture with 8 bits: 16-bit values are scaled, floating-point ones must lie in [0, 1]."""
    from PIL import Image

    if picture.mode in ("1", "L", "LA", "La"):
        return picture.convert("L")
    values = np.asarray(picture)
    low, high = float(values.min()), float(values.max())
    if picture.mode == "F":
        if not 0 <= low <= high <= 1:
            raise DataError(f"{where}: floating-point pixels from {low:g} to {high:g}; expected [0, 1]")
        scaled = values * 255
    elif not 0 <= low <= high <= 65535:
        raise DataError(f"{where}: pixels from {low:g} to {high:g}; expected 16 bits at most")
    else:
        # mode I holds 8-bit values in rare cases only; 16-bit files are what it comes from
        scaled = values / 257 if picture.mode != "I" or high > 255 else values
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _plain(picture: Any, colour: bool, where: str) -> Any:
    """Upright, 8 bits, one channel or three; transparency is dropped as image loaders do."""
    from PIL import ImageOps

    try:
        picture = ImageOps.exif_transpose(picture)
        if is_grey(picture.mode):
            picture = _eight_bit(picture, where)
        return picture.convert("RGB" if colour else "L")
    except DataError:
        raise
    except Exception as error:  # Pillow decodes when it is asked for pixels: many kinds, as above
        raise DataError(f"{where}: not a picture that can be decoded: {error}") from error


def _sized(picture: Any, form: Preprocess, where: str) -> Any:
    from PIL import Image

    height, width = form.resized(picture.height, picture.width)
    if height * width > MOST_PIXELS:
        raise DataError(
            f"{where}: a picture of {picture.height} x {picture.width} pixels would be resized to {height} x "
            f"{width}; expected one of ordinary proportions"
        )
    if (height, width) != (picture.height, picture.width):
        picture = picture.resize((width, height), Image.Resampling[form.interpolation.upper()])
    if min(height - form.height, width - form.width) < 0:
        raise DataError(
            f"{where}: a picture of {height} x {width} pixels cannot be cut to {form.height} x {form.width}"
        )
    top, left = round((height - form.height) / 2), round((width - form.width) / 2)
    return picture.crop((left, top, left + form.width, top + form.height))


@dataclass(frozen=True)
class Form:
    """What the images of a dataset must look like.

    Attributes:
        shape: (channels, height, width); None takes what comes.
        size: How pictures are resized and cut; None leaves them as they are.
        colour: Three channels instead of one.
    """

    shape: tuple[int, ...] | None = None
    size: Preprocess | None = None
    colour: bool = False

    def pixels(self, source: Any, where: str) -> Array:
        """uint8 (C, H, W) of an encoded picture, a path, or a picture.

        Raises:
            DataError: It cannot be decoded, or has another shape.
        """
        picture = _plain(opened(source, where), self.colour, where)
        array = np.asarray(picture if self.size is None else _sized(picture, self.size, where))
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if self.shape is not None and array.shape != tuple(self.shape):
            raise DataError(f"{where}: expected an image of shape {self.shape}, got {array.shape}")
        return array


def resized(grey: Array, size: Preprocess) -> Memory:
    """Grey images (N, H, W) with values from 0 to 255, as a network expects them."""
    from PIL import Image

    form = Form(size=size, colour=size.channels == 3)
    made = [
        form.pixels(Image.fromarray(np.rint(one).astype(np.uint8)), f"image {n}")
        for n, one in enumerate(grey)
    ]
    return Memory(torch.from_numpy(np.stack(made)))
