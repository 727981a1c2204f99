"""What a network must know of the images that it is built for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Square images (channels, size, size) and the number of classes."""

    channels: int
    size: int
    classes: int
