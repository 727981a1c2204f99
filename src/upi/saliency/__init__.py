"""Saliency maps: (model, images (N, C, H, W), classes (N,)) to maps (N, H, W).

One file a method; a map is a frozen value that can be called. A new method is a new
file and a line in ``MAPS``; a callable of the same signature needs neither.
"""

from __future__ import annotations

from collections.abc import Callable

from upi.errors import unknown_name
from upi.saliency.gradient import Gradient, InputXGradient
from upi.saliency.integrated import IntegratedGradients
from upi.saliency.score import SCORES, input_gradient, score
from upi.saliency.smoothgrad import SmoothGrad
from upi.types import SaliencyMap

MAPS: dict[str, Callable[[], SaliencyMap]] = {
    "gradient": Gradient,
    "input_x_gradient": InputXGradient,
    "integrated_gradients": IntegratedGradients,
    "smoothgrad": SmoothGrad,
}

#: Maps as the paper computes them, as far as it is known: the softmax output is explained,
#: integrated gradients take 10 steps and leave out the input factor.
PAPER_MAPS: dict[str, Callable[[], SaliencyMap]] = {
    "gradient": lambda: Gradient(score="softmax"),
    "input_x_gradient": lambda: InputXGradient(score="softmax"),
    "integrated_gradients": lambda: IntegratedGradients(
        score="softmax", steps=10, rule="left", multiply_by_inputs=False
    ),
    "smoothgrad": lambda: SmoothGrad(score="softmax"),
}


def resolve(saliency: str | SaliencyMap, *, paper: bool = False) -> SaliencyMap:
    """Return a map for a name, or the map or callable itself.

    Args:
        saliency: A name of ``MAPS`` or any callable ``(model, x, target) -> (N, H, W)``.
        paper: Look the name up among the paper's forms.

    Raises:
        ConfigError: The name is unknown (the message lists the known ones).
    """
    if callable(saliency):
        return saliency
    maps = PAPER_MAPS if paper else MAPS
    if saliency not in maps:
        raise unknown_name("saliency map", saliency, maps)
    return maps[saliency]()


__all__ = [
    "MAPS",
    "PAPER_MAPS",
    "SCORES",
    "Gradient",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "input_gradient",
    "resolve",
    "score",
]
