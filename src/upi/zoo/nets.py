"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from upi.errors import unknown_name


class SmallCNN(nn.Module):
    """Three convolutions with ReLU and a linear layer: the demo's digit classifier."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
        )
        side = -(-size // 4)
        self.head = nn.Linear(64 * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x).flatten(1))
        return out


NETS: dict[str, Callable[[int, int, int], nn.Module]] = {"small-cnn": SmallCNN}


def build(name: str, *, channels: int, size: int, classes: int) -> nn.Module:
    """An untrained network for images (channels, size, size).

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in NETS:
        raise unknown_name("network", name, NETS)
    return NETS[name](channels, size, classes)
