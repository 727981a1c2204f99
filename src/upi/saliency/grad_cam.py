"""Grad-CAM on a named layer, differentiable in the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.core.errors import ConfigError, ModelError
from upi.core.types import Network
from upi.saliency.reduce import normalise_maps
from upi.saliency.registry import MAPS
from upi.saliency.score import check_classes, score

#: The smallest side of a feature map that is chosen by itself, where there is one as large.
SIDE = 4


def as_grid(features: Any) -> Tensor | None:
    """Features as (N, C, h, w): feature maps as they are, tokens (N, T, C) laid out as a square.

    A first token beyond a square is a class token and left out; None for anything else.
    """
    if not isinstance(features, Tensor) or not features.is_floating_point():
        return None
    if features.ndim == 4:
        return features
    if features.ndim != 3:
        return None
    tokens = features.shape[1]
    side = math.isqrt(tokens)
    if side * side != tokens:
        side = math.isqrt(tokens - 1)
        if side < 1 or side * side != tokens - 1:
            return None
        features = features[:, 1:]
    grid: Tensor = features.transpose(1, 2).reshape(features.shape[0], features.shape[2], side, side)
    return grid


@contextmanager
def _listening(net: nn.Module, layer: str | None) -> Iterator[Callable[[], Tensor]]:
    """Hooks while inside; the function given returns the features caught in the last pass."""
    caught: list[Tensor] = []
    fallback: list[Tensor] = []

    def hear(module: nn.Module, inputs: Any, output: Any) -> None:
        grid = as_grid(output)
        if layer is not None:
            if grid is None:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ModelError(
                    f"Grad-CAM needs feature maps (N, C, h, w) or square tokens, {layer} gives {shape}"
                )
            caught[:] = [output]
        elif grid is not None and min(grid.shape[2:]) >= SIDE:
            caught[:] = [output]
        elif grid is not None and min(grid.shape[2:]) > 1:
            fallback[:] = [output]

    modules = [net.get_submodule(layer)] if layer is not None else list(net.modules())
    handles = [module.register_forward_hook(hear) for module in modules]

    def features() -> Tensor:
        found = caught or fallback
        if not found:
            raise ModelError(
                "Grad-CAM found no layer with a feature map larger than 1 x 1; name one with layer="
            )
        return found[0]

    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


@MAPS.add("grad_cam", "Grad-CAM map", order=5, paper={"score": "softmax"})
@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM (Selvaraju et al. 2017): relu(sum_k a_k A_k), a_k the mean of d s_c / d A_k.

    A are the features of one layer; the map is brought to the image's size by bilinear
    interpolation. Where ReLU leaves nothing, the map is zero everywhere.

    Attributes:
        layer: Path of a module, as in ``net.named_modules()``; None takes the last feature map of
            at least 4 x 4 positions that the network computes (tokens of transformers laid out
            as a square), else the last of more than one.
        score: ``logit`` (default), ``softmax`` or ``log_softmax``.
        normalize: ``l1``, ``l2`` or ``none``.

    Raises:
        ModelError: The network has no such layer, or it gives no feature map.
    """

    layer: str | None = None
    score: str = "logit"
    normalize: str = "l1"

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        net = getattr(model, "net", model)
        if not isinstance(net, nn.Module):
            raise ModelError(f"Grad-CAM needs a torch.nn.Module with layers, got {type(net).__name__}")
        if self.layer is not None and self.layer not in dict(net.named_modules()):
            raise ConfigError(f"the network has no layer {self.layer!r}; see net.named_modules()")
        differentiable = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            point = x if differentiable else x.detach().requires_grad_()
            with _listening(net, self.layer) as features:
                logits = model(point)
            if not differentiable:
                check_classes(logits, target)
            total = score(logits, target, self.score).sum()
            caught = features()
            (slope,) = torch.autograd.grad(total, caught, create_graph=differentiable)
        grid, weights = as_grid(caught), as_grid(slope)
        assert grid is not None
        assert weights is not None
        coarse = F.relu((weights.mean((2, 3), keepdim=True) * grid).sum(1, keepdim=True))
        fine = F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        maps = normalise_maps(fine, self.normalize)
        return maps if differentiable else maps.detach()
