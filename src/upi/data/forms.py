"""What loaders of other libraries yield, as images and labels: dictionaries, 8-bit tensors, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upi.core.errors import DataError

#: Names of images and labels in batches that are dictionaries: of transformers, of datasets, of people.
IMAGES = ("pixel_values", "image", "images", "img", "inputs", "x")
LABELS = ("labels", "label", "targets", "target", "y")


def _entry(item: Mapping[Any, Any], names: tuple[str, ...]) -> Any:
    return next((item[name] for name in names if name in item), None)


def split_batch(item: Any, where: str) -> tuple[Any, Any]:
    """Images and labels, None where there are none, of what a loader yielded.

    Raises:
        DataError: It is neither images, nor (images, labels), nor a dictionary that holds images.
    """
    if isinstance(item, Mapping):
        images = _entry(item, IMAGES)
        if images is None:
            raise DataError(
                f"{where}: expected a dictionary with images under one of {', '.join(IMAGES)}, got "
                f"{', '.join(map(str, item))}"
            )
        return images, _label(_entry(item, LABELS), where)
    if isinstance(item, (Tensor, np.ndarray)) or _pictures(item):
        return item, None
    if isinstance(item, (tuple, list)) and item:
        return item[0], _label(item[1] if len(item) > 1 else None, where)
    raise DataError(f"{where}: expected images or (images, labels), got {type(item).__name__}")


def _label(label: Any, where: str) -> Any:
    """Labels; those in a dictionary are looked for by name."""
    if not isinstance(label, Mapping):
        return label
    found = _entry(label, LABELS)
    if found is None:
        raise DataError(
            f"{where}: labels are a dictionary with {', '.join(map(str, label))}; expected a class for each "
            f"image, or one of {', '.join(LABELS)} in it: wrap the loader so that it yields (images, classes)"
        )
    return found


def _pictures(item: Any) -> bool:
    """Whether these are pictures of Pillow, one or several, without importing it."""
    first = item[0] if isinstance(item, (list, tuple)) and item else item
    return hasattr(first, "convert") and hasattr(first, "getbands")


def _array(picture: Any) -> np.ndarray[Any, Any]:
    """uint8 (C, H, W) of a picture, grey ones with one channel."""
    array = np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def tensor_of(images: Any, where: str) -> Any:
    """Images as floating-point tensors: 8-bit values are divided by 255, lists of one size are stacked.

    Raises:
        DataError: A list of images of several sizes.
    """
    if _pictures(images):
        images = [
            torch.from_numpy(_array(p).copy())
            for p in (images if isinstance(images, (list, tuple)) else [images])
        ]
    if isinstance(images, (list, tuple)) and images and all(isinstance(image, Tensor) for image in images):
        shapes = sorted({tuple(image.shape) for image in images})
        if len(shapes) > 1:
            raise DataError(
                f"{where}: images of several shapes, {shapes[0]} and {shapes[1]}: bring them to one size "
                "first, as the network expects them"
            )
        images = torch.stack(list(images))
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        return images.float() / 255
    return images
