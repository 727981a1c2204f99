"""The few protocols that the layers share, and the batch that travels between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

#: Anything that can be iterated over and yields ``images`` or ``(images, labels)``.
Loader = Iterable[Any]
#: (what, function of positions to rows) to rows for all images: see ``upi.data.cache``.
Remember = Callable[[str, Callable[[Tensor], Tensor]], Tensor]
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


@dataclass(frozen=True)
class Batch:
    """Images with the class that is explained and the map of the clean image."""

    x: Tensor  # (N, C, H, W) in [0, 1]
    target: Tensor  # (N,) int64, the clean prediction
    clean: Tensor  # (N, H, W) map at x, or (N, 0, 0) where an objective needs none
    index: int  # number of the batch in its loader, from 0
    margin: Tensor | None = None  # (N,) lead of the target's logit at x, where an objective needs it
    scale: Tensor | None = None  # () mean margin of the whole batch, where this is a part of one

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(self, keep: Tensor) -> Batch:
        """The samples where ``keep`` (N,) is true."""
        if bool(keep.all()):
            return self
        margin = None if self.margin is None else self.margin[keep]
        return replace(self, x=self.x[keep], target=self.target[keep], clean=self.clean[keep], margin=margin)
