"""Simple gradient and input x gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from upi.core.types import Network
from upi.saliency.reduce import normalise_maps, reduce_channels
from upi.saliency.registry import MAPS
from upi.saliency.score import input_gradient


@MAPS.add("gradient", "simple-gradient map", order=1, paper={"score": "softmax"})
@dataclass(frozen=True)
class Gradient:
    """Simple gradient: ``I(x) = sum over channels of |d s_c(x) / dx|`` (Simonyan et al. 2014).

    Attributes:
        score: ``logit`` (default), ``softmax`` or ``log_softmax``.
        reduce: Channel reduction, ``abs_sum`` as in the paper.
        normalize: ``l1`` as in the paper, ``l2`` or ``none``.
    """

    score: str = "logit"
    reduce: str = "abs_sum"
    normalize: str = "l1"

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        gradient = input_gradient(model, x, target, self.score)
        return normalise_maps(reduce_channels(gradient, self.reduce), self.normalize)


@MAPS.add("input_x_gradient", "input × gradient map", order=4, paper={"score": "softmax"})
@dataclass(frozen=True)
class InputXGradient:
    """Input times gradient: I(x) = x * d s_c(x) / dx (Shrikumar et al. 2016).

    Attributes: as in ``Gradient``.
    """

    score: str = "logit"
    reduce: str = "abs_sum"
    normalize: str = "l1"

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        attribution = x * input_gradient(model, x, target, self.score)
        return normalise_maps(reduce_channels(attribution, self.reduce), self.normalize)
