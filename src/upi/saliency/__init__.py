"""Saliency maps of images, one file a method.

A map takes (model, images (N, C, H, W), classes (N,)) to maps (N, H, W) and is a frozen value that can
be called. A new method is a new file that declares it (``upi.saliency.registry``); a callable of the same
signature needs none.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from upi.core.errors import ModelError
from upi.core.naming import name_of
from upi.core.types import Network, SaliencyMap
from upi.saliency.grad_cam import GradCAM
from upi.saliency.gradient import Gradient, InputXGradient
from upi.saliency.guided import GuidedBackprop
from upi.saliency.integrated import IntegratedGradients
from upi.saliency.registry import MAPS
from upi.saliency.rollout import AttentionRollout
from upi.saliency.score import SCORES, input_gradient, score
from upi.saliency.smoothgrad import SmoothGrad


def _own() -> list[type]:
    """The library's map classes."""
    return [value for value in MAPS.values() if isinstance(value, type)]


def is_own(saliency: SaliencyMap) -> bool:
    """Whether a map is one of the library's."""
    return isinstance(saliency, tuple(_own()))


def explain(saliency: SaliencyMap, model: Network, x: Tensor, target: Tensor) -> Tensor:
    """Maps (N, H, W) of images without a graph: what is compared and reported.

    A custom callable gets images that require a gradient, so that it may simply call
    ``torch.autograd.grad``; the library's own maps need no second-order graph here.

    Raises:
        ModelError: The callable does not return (N, H, W).
    """
    if is_own(saliency):
        return check_maps(saliency(model, x.detach(), target), x).detach()
    with torch.enable_grad():
        return check_maps(saliency(model, x.detach().requires_grad_(), target), x).detach()


def check_maps(maps: Any, x: Tensor) -> Tensor:
    """Return ``maps`` if they are real numbers (N, H, W) with the N of ``x``; else raise ``ModelError``."""
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.shape[0] != x.shape[0]:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ModelError(f"a saliency map must return (N, H, W) with N = {x.shape[0]}, got {got}")
    if maps.is_complex():
        raise ModelError(
            f"a saliency map must return real numbers, got {maps.dtype}; return its size, .abs()"
        )
    return maps if maps.is_floating_point() else maps.to(x.dtype)


def resolve(saliency: str | SaliencyMap, *, paper: bool = False) -> SaliencyMap:
    """Return a map for a name, or the map or callable itself.

    Args:
        saliency: A name of ``MAPS`` or any callable ``(model, x, target) -> (N, H, W)``.
        paper: In the paper's form: the softmax output is explained.

    Raises:
        ConfigError: The name is unknown (the message lists the known ones).
    """
    if callable(saliency):
        return saliency
    entry = MAPS.entry(saliency)
    return entry.value(**entry.facts.get("paper", {})) if paper else entry.value()


def title_of(saliency: str | SaliencyMap) -> str:
    """Name of a map for people."""
    if isinstance(saliency, str) and saliency in MAPS:
        return MAPS.entry(saliency).title
    return name_of(saliency)


#: The paper's form of each map, as version 0.1 named it: ``resolve(name, paper=True)``.
PAPER_MAPS = {name: partial(resolve, name, paper=True) for name in MAPS}

__all__ = [
    "MAPS",
    "PAPER_MAPS",
    "SCORES",
    "AttentionRollout",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "check_maps",
    "explain",
    "input_gradient",
    "is_own",
    "resolve",
    "score",
    "title_of",
]
