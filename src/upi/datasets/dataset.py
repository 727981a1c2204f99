"""Images with labels, in memory or read when they are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.data.shape import Shape
from upi.datasets.lazy import Batches, Images


@dataclass(frozen=True)
class Dataset:
    """Images with labels.

    Attributes:
        name: For people and files.
        images: (N, C, H, W) float32 in [0, 1], or what reads as such.
        labels: (N,) int64.
        classes: Their names.
    """

    name: str
    images: Tensor | Images
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> Shape:
        """Images and classes."""
        _, channels, height, width = self.images.shape
        return Shape(channels, height, len(self.classes), None if width == height else width)

    def take(self, index: Tensor) -> Dataset:
        """The samples at ``index``."""
        images = self.images.take(index) if isinstance(self.images, Images) else self.images[index]
        return replace(self, images=images, labels=self.labels[index])

    def first(self, count: int) -> Dataset:
        """The first ``count`` samples, or all of them where there are fewer."""
        return self.take(torch.arange(min(count, len(self))))

    def resized(self, size: int) -> Dataset:
        """The same images at ``size`` x ``size`` pixels (area averaging), in memory."""
        parts = torch.split(torch.arange(len(self)), 1000)
        small = torch.cat([F.interpolate(self.images[part], size, mode="area") for part in parts])
        return replace(self, name=f"{self.name} at {size}x{size}", images=small)

    def batches(self, size: int, *, workers: int | None = None) -> Sequence[tuple[Tensor, Tensor]]:
        """Consecutive (images, labels) of at most ``size`` samples; none for an empty dataset."""
        if not len(self):
            return []
        if isinstance(self.images, Images):
            return Batches(self.images, self.labels, size, workers)
        return list(zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True))

    def fingerprint(self) -> str:
        """SHA-256 of images and labels, as hex: of pixels, or of encoded pictures where these are read."""
        digest = hashlib.sha256()
        if isinstance(self.images, Images):
            self.images.update(digest)
        else:
            digest.update(str(tuple(self.images.shape)).encode())
            digest.update(self.images.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()
