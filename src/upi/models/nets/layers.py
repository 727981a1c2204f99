"""What the small-image networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def scaled(width: int, multiplier: float, *, multiple: int = 8) -> int:
    """A layer's width times the multiplier, rounded to a multiple of 8, at least 8."""
    return max(multiple, round(width * multiplier / multiple) * multiple)


def conv_norm(
    inside: int, outside: int, kernel: int = 3, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution without bias and its batch norm."""
    return [
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
    ]


class Normalise(nn.Module):
    """(x - mean) / std with fixed constants, so that networks take images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...] = (0.5,), std: tuple[float, ...] = (0.25,)) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Classify(nn.Sequential):
    """Mean over the image, then a linear layer."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))
