"""What must hold of a map that is not the library's own before its changes mean anything.

Guards against maps that draw random numbers, drift from call to call, or are normalised over the batch: they
"change" without any perturbation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from upi.core.errors import ModelError
from upi.core.naming import short_name
from upi.core.types import Network, SaliencyMap
from upi.saliency import explain, is_own

#: Images looked at, and the relative change of a map that is put down to rounding.
PROBE, ROUNDING = 4, 1e-2


def _change(reference: Tensor, other: Tensor) -> float:
    """Relative l2 change of maps (N, H, W) together; 0 where they are zero or not finite."""
    size = float(torch.linalg.vector_norm(reference))
    gap = float(torch.linalg.vector_norm(other - reference))
    return gap / size if size > 0 and gap == gap else 0.0


def require_stable(saliency: SaliencyMap, model: Network, x: Tensor, target: Tensor) -> None:
    """Refuse a map that is no function of its image.

    Args:
        saliency: The map; the library's own are known to be functions.
        model: What it explains.
        x: A few images (N, C, H, W).
        target: Their classes (N,).

    Raises:
        ModelError: Two calls, or an image alone and in a batch, give different maps.
    """
    if is_own(saliency):
        return
    some, classes = x[:PROBE], target[:PROBE]
    first, second = (explain(saliency, model, some, classes) for _ in range(2))
    drift = _change(first, second)
    if drift > ROUNDING:
        raise ModelError(
            f"the map {short_name(saliency)} is not a function of the image: two calls differ by {drift:.1%} "
            "without any perturbation. Fix its random numbers (a seed, or the same noise in every call)"
        )
    alone = _change(first[:1], explain(saliency, model, some[:1], classes[:1]))
    if alone > ROUNDING:
        raise ModelError(
            f"the map {short_name(saliency)} of an image depends on the rest of its batch: alone it differs "
            f"by {alone:.1%}. Normalise each map by itself"
        )
