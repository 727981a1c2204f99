"""The few protocols that the layers share, and the batch that travels between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

#: Anything that can be iterated over and yields ``images`` or ``(images, labels)``.
Loader = Iterable[Any]
#: Called with (steps done, steps in all).
Progress = Callable[[int, int], None]


class Network(Protocol):
    """Images (N, C, H, W) in [0, 1] to logits (N, K)."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


class SaliencyMap(Protocol):
    """(model, images (N, C, H, W), classes (N,)) to maps (N, H, W).

    Differentiable in the images whenever they require a gradient.
    """

    def __call__(self, model: Any, x: Tensor, target: Tensor, /) -> Tensor: ...


class Dissimilarity(Protocol):
    """(clean maps (N, H, W), perturbed maps (N, H, W)) to values (N,); 0 for equal maps."""

    def __call__(self, clean: Tensor, perturbed: Tensor, /) -> Tensor: ...


class Perturber(Protocol):
    """(images (N, C, H, W) in [0, 1], classes (N,)) to perturbed images in [0, 1].

    Universal and per-image attacks are both of this kind, so one evaluation serves both.
    """

    def __call__(self, x: Tensor, target: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Samples:
    """Validated images and, where the loader gives them, labels."""

    x: Tensor  # (N, C, H, W) in [0, 1]
    label: Tensor | None  # (N,) int64
    index: int  # number of the batch in its loader, from 0
    first: int = 0  # place of the first image in that batch, where this is a piece of it
