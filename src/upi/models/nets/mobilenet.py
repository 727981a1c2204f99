"""MobileNetV2 for small images."""

from __future__ import annotations

from torch import Tensor, nn

from upi.data.shape import Shape
from upi.models.nets.layers import Classify, Normalise, conv_norm, scaled

#: Expansion, width, repeats and stride of the stages (Sandler et al. 2018, table 2). At 28 to 48
#: pixels the stem and the second stage keep the resolution, above that only the stem does.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Inverted(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(self, inside: int, outside: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inside * expansion
        widen = [*conv_norm(inside, wide, 1), nn.ReLU6()] if expansion > 1 else []
        self.body = nn.Sequential(
            *widen,
            *conv_norm(wide, wide, stride=stride, groups=wide),
            nn.ReLU6(),
            *conv_norm(wide, outside, 1),
        )
        self.add = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.add else out


class MobileNetV2(nn.Module):
    """MobileNetV2 whose first strides are dropped for small images."""

    def __init__(self, shape: Shape, width: float = 1.0) -> None:
        super().__init__()
        channels = scaled(32, width)
        layers: list[nn.Module] = [
            Normalise(),
            *conv_norm(shape.channels, channels, stride=2 if shape.size > 48 else 1),
            nn.ReLU6(),
        ]
        for expansion, base, repeats, stride in STAGES:
            outside = scaled(base, width)
            for number in range(repeats):
                layers.append(Inverted(channels, outside, expansion, stride if number == 0 else 1))
                channels = outside
        last = scaled(1280, width) if width > 1 else max(320, scaled(1280, width))
        layers += [*conv_norm(channels, last, 1), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.head = Classify(last, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out
