"""Images with labels, in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.core.errors import ConfigError
from upi.data.shape import Shape


@dataclass(frozen=True)
class Dataset:
    """Images with labels, in memory."""

    name: str
    images: Tensor  # (N, C, H, W) float32 in [0, 1]
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> Shape:
        """Images and classes.

        Raises:
            ConfigError: The images are not square.
        """
        _, channels, height, width = self.images.shape
        if height != width:
            raise ConfigError(f"the networks of the zoo take square images, got {height} x {width}")
        return Shape(channels, height, len(self.classes))

    def take(self, index: Tensor) -> Dataset:
        """The samples at ``index``."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def first(self, count: int) -> Dataset:
        """The first ``count`` samples, or all of them where there are fewer."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def resized(self, size: int) -> Dataset:
        """The same images at ``size`` x ``size`` pixels (area averaging)."""
        small = torch.cat([F.interpolate(part, size, mode="area") for part in torch.split(self.images, 1000)])
        return replace(self, name=f"{self.name} at {size}x{size}", images=small)

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """Consecutive (images, labels) of at most ``size`` samples; none for an empty dataset."""
        if not len(self):
            return []
        return list(zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True))

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels, as hex."""
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        digest.update(self.images.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()
