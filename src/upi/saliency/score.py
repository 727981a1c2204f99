"""The score whose gradient a map shows, and that gradient itself.

Guards against saturated softmax outputs: p_c = sigmoid(z_c - logsumexp of the others)
keeps its gradient where the textbook formula rounds 1 - p_c to zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.core.errors import ModelError, unknown_name
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
