"""What must hold of a network before its maps mean anything."""

from __future__ import annotations

import torch
from torch import Tensor

from upi.core.errors import ModelError
from upi.network.classifier import Classifier


def nondeterminism(model: Classifier, x: Tensor) -> float:
    """Largest difference of the logits of two passes over images in eval mode, 0 up to rounding."""
    first, second = model.probe(x), model.probe(x)
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


def gives_probabilities(model: Classifier, x: Tensor) -> bool:
    """Whether outputs for images (N, C, H, W) look like a softmax where logits are expected."""
    out = model.probe(x)
    return bool((out >= 0).all()) and torch.allclose(out.sum(1), torch.ones_like(out[:, 0]), atol=1e-3)
