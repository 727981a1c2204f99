"""VGG-16 for small images."""

from __future__ import annotations

from torch import Tensor, nn

from upi.data.shape import Shape
from upi.models.nets.layers import Classify, Normalise, conv_norm, scaled

#: Convolutions per stage and their width (Simonyan and Zisserman 2015, configuration D).
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class VGG16(nn.Module):
    """VGG-16 with batch norm and one linear layer, as is usual for CIFAR.

    A stage's max-pooling is left out once the image is smaller than two pixels.
    """

    def __init__(self, shape: Shape, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = [Normalise()]
        channels, side = shape.channels, shape.size
        for count, base in STAGES:
            for _ in range(count):
                outside = scaled(base, width)
                layers += [*conv_norm(channels, outside), nn.ReLU()]
                channels = outside
            if side >= 2:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers)
        self.head = Classify(channels, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out
