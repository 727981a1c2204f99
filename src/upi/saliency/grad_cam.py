"""Grad-CAM on a named layer, differentiable in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.core.errors import ConfigError, ModelError
from upi.core.types import Network
from upi.saliency.features import Heard, Layout, listening
from upi.saliency.reduce import normalise_maps
from upi.saliency.registry import MAPS
from upi.saliency.score import check_classes, score_of

#: The smallest side of a feature map that is chosen by itself, where there is one as large.
SIDE = 4


#: Which feature map is looked at, by network, images' size and score: chosen once, so that the maps of an
#: image and of its perturbed copy are of the same features.
_CHOSEN: WeakKeyDictionary[nn.Module, dict[Any, int]] = WeakKeyDictionary()


def _chosen(net: nn.Module, heard: Heard, total: Tensor, key: Any) -> tuple[Tensor, Layout]:
    """The last feature map of at least ``SIDE`` x ``SIDE`` positions that the score depends on, else the last
    of more than one position."""
    known = _CHOSEN.setdefault(net, {})
    if known.get(key, -1) in range(len(heard.found)) and key in known:
        return heard.found[known[key]]
    large = [n for n, (_, layout) in enumerate(heard.found) if min(layout.grid) >= SIDE]
    small = [n for n, (_, layout) in enumerate(heard.found) if 1 < min(layout.grid) < SIDE]
    order = [*reversed(large), *reversed(small)]
    if not order:
        raise ModelError(
            "Grad-CAM found no layer with a feature map larger than 1 x 1; name one with layer=, or give "
            "images whose patches are laid out as they are"
        )
    found = next((n for n in order if _matters(total, *heard.found[n])), order[0])
    known[key] = found
    return heard.found[found]


def _matters(total: Tensor, features: Tensor, layout: Layout) -> bool:
    """Whether the score depends on the features at some position of the grid: not, of a transformer's last
    block, where a class token alone is read."""
    if not features.requires_grad:
        return False
    (slope,) = torch.autograd.grad(total, features, retain_graph=True, allow_unused=True)
    return slope is not None and bool(layout.maps(slope).ne(0).any())


@MAPS.add("grad_cam", "Grad-CAM map", order=5, paper={"score": "softmax"})
@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM (Selvaraju et al. 2017): relu(sum_k a_k A_k), a_k the mean of d s_c / d A_k.

    A are the features of one layer; the map is brought to the image's size by bilinear
    interpolation. Where ReLU leaves nothing, the map is zero everywhere.

    Attributes:
        layer: Path of a module, as in ``net.named_modules()``; None takes the last feature map of at least
            4 x 4 positions that the network computes and its output depends on, else the last of more than
            one. Tokens of transformers are laid out as the patches were, without class and register tokens.
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
            image = (x.shape[2], x.shape[3])
            with listening(net, self.layer, image) as heard:
                logits = model(point)
            if not differentiable:
                check_classes(logits, target)
            total = score_of(model, logits, target, self.score).sum()
            caught, layout = self._features(net, heard, total, image)
            (slope,) = torch.autograd.grad(total, caught, create_graph=differentiable)
        grid, weights = layout.maps(caught), layout.maps(slope)
        coarse = F.relu((weights.mean((2, 3), keepdim=True) * grid).sum(1, keepdim=True))
        fine = F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        maps = normalise_maps(fine, self.normalize)
        return maps if differentiable else maps.detach()

    def _features(
        self, net: nn.Module, heard: Heard, total: Tensor, image: tuple[int, int]
    ) -> tuple[Tensor, Layout]:
        if self.layer is None:
            return _chosen(net, heard, total, (image, self.score))
        if not heard.found:
            raise ModelError(
                f"Grad-CAM needs feature maps (N, C, h, w) or tokens of a grid of patches, {self.layer} "
                "gives neither"
            )
        return heard.found[-1]
