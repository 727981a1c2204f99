"""What must hold of a network before its maps mean anything."""

from __future__ import annotations

import torch
from torch import Tensor

from upi.core.errors import ModelError
from upi.core.memory import with_fewer
from upi.network.classifier import Classifier

#: Relative difference of logits that is put down to rounding; 1e-3 for other types.
ROUNDING = {torch.float16: 3e-2, torch.bfloat16: 1e-1, torch.float64: 1e-6}


def nondeterminism(model: Classifier, x: Tensor) -> float:
    """Largest difference of the logits of two passes over images in eval mode, 0 up to rounding."""
    first, second = with_fewer(lambda some: (model.probe(some), model.probe(some)), x)
    if torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
        return 0.0
    return float((first - second).abs().max())


def require_deterministic(model: Classifier, x: Tensor) -> None:
    """Raise ``ModelError`` if two passes over the same images differ in eval mode."""
    gap = nondeterminism(model, x)
    if gap != 0:
        raise ModelError(
            f"the model is not deterministic in eval mode: two passes over the same {x.shape[0]} images "
            f"differ by up to {gap:.3g}; maps of one image would differ without any perturbation"
        )


def dependence(model: Classifier, x: Tensor) -> float:
    """Largest difference between the logits of an image alone and in a batch, relative to their size.

    0 up to rounding where images do not influence each other.
    """
    batch = torch.cat([x, x.flip(-1), 1 - x]) if len(x) < 3 else x
    together = with_fewer(lambda some: model.probe(some)[:1], batch)
    alone = model.probe(batch[:1])
    size = float(together.abs().max())
    gap = float((together - alone).abs().max()) / max(size, 1e-12)
    return gap if gap > ROUNDING.get(together.dtype, 1e-3) else 0.0


def require_independent(model: Classifier, x: Tensor) -> None:
    """Raise ``ModelError`` if the images of a batch influence each other's logits."""
    gap = dependence(model, x)
    if gap != 0:
        raise ModelError(
            f"the images of a batch influence each other: the logits of an image alone differ by {gap:.1%} "
            "of their size from those in a batch; figures would depend on the batch. Usual causes: batch "
            "norm without running statistics (track_running_stats=False), statistics, dynamic quantisation, "
            "a softmax or attention taken over the first dimension. Give it running statistics, or take "
            "those sums over each image"
        )


def gives_probabilities(model: Classifier, x: Tensor) -> bool:
    """Whether outputs for images (N, C, H, W) look like a softmax where logits are expected."""
    out = with_fewer(model.probe, x)
    return bool((out >= 0).all()) and torch.allclose(out.sum(1), torch.ones_like(out[:, 0]), atol=1e-3)


#: What torch says of operators that can be differentiated only once.
ONCE = ("derivative", "double backward", "differentiate twice", "once_differentiable", "does not support")


def explained(error: RuntimeError) -> Exception:
    """The error of a second derivative that does not exist, with the way out; any other error as it is."""
    message = str(error).splitlines()[0] if str(error) else ""
    if not any(word in message for word in ONCE):
        return error
    return ModelError(
        f"an operator of the network has no second derivative, which attack gradients need: {message[:200]}. "
        "Use UPIPCA(rows='stein'), which needs map values only"
    )
