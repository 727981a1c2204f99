"""The demo's digit classifier."""

from __future__ import annotations

from torch import Tensor, nn

from upi.data.shape import Shape


class SmallCNN(nn.Module):
    """Three convolutions with ReLU and a linear layer."""

    def __init__(self, shape: Shape, width: float = 1.0) -> None:
        super().__init__()
        first, second, third = (max(1, round(width * k)) for k in (16, 32, 64))
        self.features = nn.Sequential(
            nn.Conv2d(shape.channels, first, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
        )
        side = -(-shape.size // 4)
        self.head = nn.Linear(third * side * side, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x).flatten(1))
        return out
