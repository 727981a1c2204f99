"""Saliency maps of images, one file a method.

A map takes (model, images (N, C, H, W), classes (N,)) to maps (N, H, W) and is a frozen value that can
be called. A new method is a new file and a line in ``MAPS``; a callable of the same signature needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from upi.core.errors import ModelError, unknown_name
from upi.core.types import Network, SaliencyMap
from upi.saliency.grad_cam import GradCAM
from upi.saliency.gradient import Gradient, InputXGradient
from upi.saliency.integrated import IntegratedGradients
from upi.saliency.score import SCORES, input_gradient, score
from upi.saliency.smoothgrad import SmoothGrad

MAPS: dict[str, Callable[[], SaliencyMap]] = {
    "gradient": Gradient,
    "input_x_gradient": InputXGradient,
    "integrated_gradients": IntegratedGradients,
    "smoothgrad": SmoothGrad,
    "grad_cam": GradCAM,
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
    "grad_cam": lambda: GradCAM(score="softmax"),
}


_OWN = (GradCAM, Gradient, InputXGradient, IntegratedGradients, SmoothGrad)


def explain(saliency: SaliencyMap, model: Network, x: Tensor, target: Tensor) -> Tensor:
    """Maps (N, H, W) of images without a graph: what is compared and reported.

    A custom callable gets images that require a gradient, so that it may simply call
    ``torch.autograd.grad``; the library's own maps need no second-order graph here.

    Raises:
        ModelError: The callable does not return (N, H, W).
    """
    if isinstance(saliency, _OWN):
        return check_maps(saliency(model, x.detach(), target), x).detach()
    with torch.enable_grad():
        return check_maps(saliency(model, x.detach().requires_grad_(), target), x).detach()


def check_maps(maps: Any, x: Tensor) -> Tensor:
    """Return ``maps`` if they are (N, H, W) with the N of ``x``; else raise ``ModelError``."""
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.shape[0] != x.shape[0]:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ModelError(f"a saliency map must return (N, H, W) with N = {x.shape[0]}, got {got}")
    return maps


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
    if not isinstance(saliency, str):
        raise unknown_name("saliency map", saliency, MAPS)
    maps = PAPER_MAPS if paper else MAPS
    if saliency not in maps:
        raise unknown_name("saliency map", saliency, maps)
    return maps[saliency]()


__all__ = [
    "MAPS",
    "PAPER_MAPS",
    "SCORES",
    "GradCAM",
    "Gradient",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "check_maps",
    "explain",
    "input_gradient",
    "resolve",
    "score",
]
