"""Which images count: the rules that attacks, evaluation and pictures share."""

from __future__ import annotations

import torch
from torch import Tensor

from upi.core.types import Samples


def correctly_classified(sample: Samples, predicted: Tensor) -> Tensor | None:
    """(N,) whether each image is classified as its label; None where the images came without labels."""
    return None if sample.label is None else predicted == sample.label.to(predicted.device)


def explained(maps: Tensor) -> Tensor:
    """(N,) whether each map (N, H, W) is other than zero: a relative change of nothing is not defined.

    Maps of no pixels, of an objective that needs none, count.
    """
    if maps[0].numel() == 0:
        return torch.ones(len(maps), dtype=torch.bool, device=maps.device)
    return maps.flatten(1).ne(0).any(1)
