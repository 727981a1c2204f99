"""Feature maps inside a network, whatever their layout: (N, C, h, w), (N, h, w, C), or tokens (N, T, C).

Guards against layouts that only look like feature maps: heads of attention, tokens of a grid that is not
square, class and register tokens among those of patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

#: Tokens before those of patches that are taken for class and register tokens, at the most.
PREFIX = 16
#: Times that later stages may halve the grid of patches.
HALVINGS = 4


@dataclass(frozen=True)
class Layout:
    """How features become (N, C, h, w).

    Attributes:
        kind: ``"maps"`` (N, C, h, w), ``"last"`` (N, h, w, C) or ``"tokens"`` (N, T, C).
        grid: (h, w).
        prefix: Tokens before those of the grid.
    """

    kind: str
    grid: tuple[int, int]
    prefix: int = 0

    def maps(self, features: Tensor) -> Tensor:
        """Features, or their gradient, as (N, C, h, w)."""
        if self.kind == "maps":
            return features
        if self.kind == "last":
            return features.permute(0, 3, 1, 2)
        found: Tensor = features[:, self.prefix :].transpose(1, 2)
        return found.reshape(*found.shape[:2], *self.grid)


def _like(height: int, width: int, image: tuple[int, int]) -> bool:
    """Whether a grid has the proportions of the images, up to a cell."""
    return abs(height * image[1] - width * image[0]) <= max(image)


def layout_of(features: Any, image: tuple[int, int], patches: tuple[int, int] | None) -> Layout | None:
    """The layout of what a module returned; None where it is no feature map.

    Args:
        features: As returned.
        image: (H, W) of the images.
        patches: Grid of the last convolution before tokens, where there are tokens.
    """
    if not isinstance(features, Tensor) or not features.is_floating_point():
        return None
    if features.ndim == 3:
        return _tokens(features.shape[1], image, patches)
    if features.ndim != 4:
        return None
    _, a, b, c = features.shape
    if patches is not None and 0 <= b - patches[0] * patches[1] <= PREFIX and b > 1:
        return None  # heads of attention: (N, heads, T, d)
    if _like(b, c, image):
        return Layout("maps", (b, c))
    return Layout("last", (a, b)) if _like(a, b, image) else None


def _tokens(count: int, image: tuple[int, int], patches: tuple[int, int] | None) -> Layout | None:
    if patches is None:
        side = round(count**0.5)
        for prefix in (0, 1):
            if image[0] == image[1] and round((count - prefix) ** 0.5) ** 2 == count - prefix:
                side = round((count - prefix) ** 0.5)
                return Layout("tokens", (side, side), prefix)
        return None
    height, width = patches
    for _ in range(HALVINGS + 1):
        prefix = count - height * width
        if 0 <= prefix <= (PREFIX if (height, width) == patches else 0):
            return Layout("tokens", (height, width), prefix)
        height, width = -(-height // 2), -(-width // 2)
    return None


@dataclass
class Heard:
    """Feature maps of a pass, in the order in which modules returned them."""

    image: tuple[int, int]
    found: list[tuple[Tensor, Layout]] = field(default_factory=list)
    patches: tuple[int, int] | None = None
    tokens: bool = False

    def begin(self, *_: Any) -> None:
        """A pass begins: only the last one counts."""
        self.found, self.patches, self.tokens = [], None, False

    def hear(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A forward hook."""
        if isinstance(module, nn.Conv2d) and isinstance(output, Tensor) and not self.tokens:
            self.patches = (output.shape[-2], output.shape[-1])
        if isinstance(output, Tensor) and output.ndim == 3:
            self.tokens = True
        if isinstance(module, nn.Linear):
            return  # a projection inside a block (queries, keys, values), not what the block hands on
        layout = layout_of(output, self.image, self.patches if self.tokens else None)
        if layout is not None:
            self.found.append((output, layout))


@contextmanager
def listening(net: nn.Module, layer: str | None, image: tuple[int, int]) -> Iterator[Heard]:
    """Hooks while inside; what they heard is filled by each pass.

    Args:
        net: The network.
        layer: Path of the one module that is listened to; None listens to all.
        image: (H, W) of the images.
    """
    heard = Heard(image)
    only = None if layer is None else net.get_submodule(layer)

    def hear(module: nn.Module, inputs: Any, output: Any) -> None:
        before = len(heard.found)
        heard.hear(module, inputs, output)
        if only is not None and module is not only:
            del heard.found[before:]

    handles: list[Any] = [module.register_forward_hook(hear) for module in net.modules()]
    handles.append(net.register_forward_pre_hook(heard.begin))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
