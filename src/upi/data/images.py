"""The public door for images: whatever the loader yields becomes validated ``Samples``.

Guards against images in 0-255, NaN pixels, mixed shapes and empty loaders: all of
them would otherwise give plausible but wrong numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor

from upi.core.errors import DataError
from upi.core.types import Loader, Samples
from upi.data.forms import split_batch, tensor_of

#: How far outside [0, 1] rounding may take a pixel; such pixels are clipped.
SLACK = 1e-4


def _where(flags: Tensor) -> int:
    return int(flags.flatten(1).any(1).nonzero()[0].item())


def check_finite(x: Any, *, where: str = "images") -> Tensor:
    """Return ``x`` if it is a batch of finite floating-point images, shape (N, C, H, W).

    Raises:
        DataError: Otherwise; the message names the first offending sample.
    """
    if not isinstance(x, Tensor):
        raise DataError(f"{where}: expected a torch.Tensor of shape (N, C, H, W), got {type(x).__name__}")
    if x.ndim != 4:
        raise DataError(f"{where}: expected shape (N, C, H, W), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise DataError(
            f"{where}: expected floating-point images in [0, 1], got {x.dtype}; divide 8-bit images by 255"
        )
    finite = torch.isfinite(x)
    if not finite.all():
        raise DataError(f"{where}: sample {_where(~finite)} has NaN or infinite pixels")
    return x


def check_images(x: Any, *, where: str = "images") -> Tensor:
    """Return ``x`` if it is a batch of finite images in [0, 1], shape (N, C, H, W).

    Raises:
        DataError: Otherwise; the message names the first offending sample.
    """
    images = check_finite(x, where=where)
    outside = (images < -SLACK) | (images > 1 + SLACK)
    if outside.any():
        low, high = images.min().item(), images.max().item()
        raise DataError(
            f"{where}: expected values in [0, 1], got [{low:.4g}, {high:.4g}] "
            f"(first in sample {_where(outside)}); scale the images and leave the "
            "normalisation to Classifier(mean=..., std=...)"
        )
    return images.detach().clamp(0, 1)


def _check_labels(label: Any, n: int, where: str) -> Tensor:
    """Classes (N,) int64, or rows (N, K) that are 1 for the classes that an image has, else 0."""
    try:
        tensor = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where}: expected {n} integer labels, got {type(label).__name__}: {error}"
        ) from error
    if tensor.ndim == 2 and tensor.shape == (n, 1) and not tensor.is_floating_point():
        tensor = tensor[:, 0]
    rows = tensor.ndim == 2 and len(tensor) == n and bool(((tensor == 0) | (tensor == 1)).all())
    if not rows and (tensor.shape != (n,) or tensor.is_floating_point() or tensor.is_complex()):
        raise DataError(
            f"{where}: expected {n} integer labels of shape ({n},), or ({n}, K) of zeros and ones, "
            f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    return tensor.long()


def samples(loader: Loader) -> Iterator[Samples]:
    """Iterate once over ``loader``, validating every batch.

    Raises:
        DataError: A batch is malformed, or the loader yields no image at all.
    """
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise DataError(f"expected an iterable of (images, labels), got {type(loader).__name__}")
    shape: torch.Size | None = None
    for index, item in enumerate(loader):
        where = f"batch {index}"
        images, label = split_batch(item, where)
        x = check_images(tensor_of(images, where), where=where)
        if shape is not None and x.shape[1:] != shape:
            raise DataError(
                f"{where}: images of shape {tuple(x.shape[1:])} after images of shape {tuple(shape)}"
            )
        if x.shape[0] == 0:
            continue
        shape = x.shape[1:]
        yield Samples(x, None if label is None else _check_labels(label, x.shape[0], where), index)
    if shape is None:
        raise DataError("the loader yields no images")


def cut(sample: Samples, size: int | None) -> list[Samples]:
    """A batch in pieces of ``size`` images, the last of fewer; None leaves it whole."""
    count = sample.x.shape[0]
    if size is None or size >= count:
        return [sample]
    return [
        Samples(
            sample.x[first : first + size],
            None if sample.label is None else sample.label[first : first + size],
            sample.index,
            sample.first + first,
        )
        for first in range(0, count, size)
    ]


class Remembered:
    """An iterable that reads a one-shot iterator once and replays what it read.

    Attacks need several passes over the same images; memory grows with what was read.
    """

    def __init__(self, source: Iterable[Any]) -> None:
        self._source = iter(source)
        self._seen: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        yield from self._seen
        for item in self._source:
            self._seen.append(item)
            yield item


def replayable(loader: Loader) -> Loader:
    """A loader that can be iterated over again: one-shot iterators are remembered."""
    return Remembered(loader) if isinstance(loader, Iterator) else loader


def is_static(loader: Loader) -> bool:
    """Whether every pass yields the same tensors, so that work per batch can be kept."""
    return isinstance(loader, (list, tuple, Remembered)) or bool(getattr(loader, "static", False))


def count_of(loader: Loader) -> int:
    """Number of batches, 0 where the loader does not know."""
    try:
        return len(loader) if isinstance(loader, Sized) else 0
    except TypeError:  # a torch DataLoader around an IterableDataset
        return 0


def images_of(loader: Loader) -> int:
    """Number of images of a pass, 0 where that is not known without one."""
    if isinstance(loader, (list, tuple)):
        return sum(len(split_batch(item, "batch")[0]) for item in loader)
    dataset = getattr(loader, "dataset", None)
    try:
        return len(dataset) if isinstance(dataset, Sized) else 0
    except TypeError:
        return 0
