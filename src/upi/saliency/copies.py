"""Gradients at many copies of each image, for maps of many passes: in groups that fit in memory.

Guards against graphs that grow with the passes of a map or with the size of its images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from upi.core.memory import together
from upi.core.types import Network
from upi.saliency.score import input_gradient


def input_gradients(model: Network, points: Tensor, target: Tensor, kind: str) -> Tensor:
    """Gradients (K, N, C, H, W) at K copies ``points`` (K, N, C, H, W) of images of classes ``target`` (N,).

    As ``input_gradient``, with all copies in one pass.
    """
    classes = target.repeat(len(points))
    return input_gradient(model, points.flatten(0, 1), classes, kind).view_as(points)


#: Images that go through the network together at the most where a map looks at many copies of each.
TOGETHER = 128
#: Copies of a single image, in units of those that go through together, of which graphs are kept.
KEPT = 2


class _Recomputed(torch.autograd.Function):
    """A function of points whose graph is not kept but made again when it is differentiated."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(points)
        ctx.work = work
        return work(points.detach())

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor, None]:
        (points,) = ctx.saved_tensors
        further = torch.is_grad_enabled()  # the result is differentiated once more
        with torch.enable_grad():
            point = points if further else points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.work(point), point, weights, create_graph=further)
        return slope, None


def copies_at_once(copies: int, x: Tensor) -> Iterator[slice]:
    """Copies 0, 1, ... of images (N, C, H, W) in groups of at least one copy, which together hold at most
    ``TOGETHER`` small images, fewer large ones."""
    size = max(1, together(x.shape[1:], TOGETHER) // len(x))
    for first in range(0, copies, size):
        yield slice(first, min(first + size, copies))


def copied_gradients(
    model: Network, x: Tensor, copied: Callable[[slice], Tensor], copies: int, target: Tensor, kind: str
) -> Iterator[tuple[slice, Tensor]]:
    """Gradients (K, N, C, H, W) at copies of images, group by group, each with its place among the copies.

    Where they are differentiated, the graph of a single image with very many copies is not kept: it is made
    again, group by group, which costs a pass more and keeps the memory flat.

    Args:
        model: What the map looks through.
        x: Images (N, C, H, W).
        copied: From a place among the copies to the points (K, N, C, H, W).
        copies: How many there are of each image.
        target: Classes (N,).
        kind: The score.
    """
    many = len(x) == 1 and copies > KEPT * together(x.shape[1:], TOGETHER) and _weights_are_held(model)

    def work(points: Tensor) -> Tensor:
        return input_gradients(model, points, target, kind)

    for some in copies_at_once(copies, x):
        points = copied(some)
        again = many and points.requires_grad and torch.is_grad_enabled()
        yield some, _Recomputed.apply(points, work) if again else work(points)


def _weights_are_held(model: Network) -> bool:
    """Whether nobody trains the network: what is made again leaves weights without a gradient."""
    net = getattr(model, "net", None)
    return isinstance(net, nn.Module) and not any(weight.requires_grad for weight in net.parameters())
