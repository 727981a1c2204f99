"""The score whose gradient a map shows, and that gradient itself.

Guards against saturated softmax outputs: p_c = sigmoid(z_c - logsumexp of the others)
keeps its gradient where the textbook formula rounds 1 - p_c to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.core.errors import ModelError, unknown_name
from upi.core.memory import together
from upi.core.types import Network


def _logit(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(1, target[:, None]).squeeze(1)


def _log_odds(logits: Tensor, target: Tensor) -> Tensor:
    others = logits.scatter(1, target[:, None], -torch.inf)
    return _logit(logits, target) - others.logsumexp(1)


def _softmax(logits: Tensor, target: Tensor) -> Tensor:
    odds = _log_odds(logits, target)
    return torch.where(odds > 0, 1 - torch.sigmoid(-odds), torch.sigmoid(odds))


def _log_softmax(logits: Tensor, target: Tensor) -> Tensor:
    return F.logsigmoid(_log_odds(logits, target))


SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logit": _logit,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "log_odds": _log_odds,
}


def score(logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """Score (N,) of classes ``target`` (N,) from logits (N, K).

    Args:
        logits: (N, K).
        target: (N,) int64 class indices.
        kind: ``logit``, ``softmax`` (probability p), ``log_softmax``, or ``log_odds``, log p / (1 - p).

    Raises:
        ConfigError: ``kind`` is unknown.
    """
    if kind not in SCORES:
        raise unknown_name("score", kind, SCORES)
    return SCORES[kind](logits, target)


def score_of(model: Network, logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """``score``; of a binary network, whose logits are [0, z], ``logit`` means the log-odds, +-z.

    The logit 0 of "no" does not depend on the image; its map would be zero everywhere.
    """
    odds = kind == "logit" and bool(getattr(model, "binary", False))
    return score(logits, target, "log_odds" if odds else kind)


def check_classes(logits: Tensor, target: Tensor) -> None:
    """Raise ``ModelError`` if a class index is outside the model's K classes."""
    if int(target.max()) >= logits.shape[1] or int(target.min()) < 0:
        raise ModelError(f"class {int(target.max())} asked for, the model has {logits.shape[1]} classes")


def input_gradient(model: Network, x: Tensor, target: Tensor, kind: str) -> Tensor:
    """Gradient of the score with respect to the images, (N, C, H, W).

    It can itself be differentiated exactly when ``x`` requires a gradient; otherwise
    no second-order graph is built. Classes are checked only then: an attack has explained the
    clean images before, and looking at numbers would stall an accelerator in every step.

    Raises:
        ConfigError: ``kind`` is unknown.
        ModelError: A class index is outside the model's K classes.
    """
    differentiable = x.requires_grad and torch.is_grad_enabled()
    with torch.enable_grad():
        point = x if differentiable else x.detach().requires_grad_()
        logits = model(point)
        if not differentiable:
            check_classes(logits, target)
        total = score_of(model, logits, target, kind).sum()
        (gradient,) = torch.autograd.grad(total, point, create_graph=differentiable)
    return gradient


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
