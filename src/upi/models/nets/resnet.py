"""ResNet-18 for small images."""

from __future__ import annotations

from torch import Tensor, nn

from upi.data.shape import Shape
from upi.models.nets.layers import Classify, Normalise, conv_norm, scaled


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm(inside, outside, stride=stride), nn.ReLU(), *conv_norm(outside, outside)
        )
        same = stride == 1 and inside == outside
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*conv_norm(inside, outside, 1, stride=stride))
        )
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.body(x) + self.shortcut(x))
        return out


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem; above 48 pixels the stem halves the image."""

    def __init__(self, shape: Shape, width: float = 1.0) -> None:
        super().__init__()
        widths = [scaled(base, width) for base in (64, 128, 256, 512)]
        stem = conv_norm(shape.channels, widths[0], stride=2 if shape.size > 48 else 1)
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, outside in enumerate(widths):
            blocks += [Block(channels, outside, 2 if stage else 1), Block(outside, outside, 1)]
            channels = outside
        self.features = nn.Sequential(Normalise(), *stem, nn.ReLU(), *blocks)
        self.head = Classify(channels, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out
