"""Which images count: the rules that attacks, evaluation and pictures share."""

from __future__ import annotations

import torch
from torch import Tensor

from upi.core.types import Samples
from upi.network.frozen import FrozenNetwork


def correctly_classified(network: FrozenNetwork, sample: Samples, predicted: Tensor) -> Tensor | None:
    """(N,) whether each image is classified as its label; None where the images came without labels.

    Of a multi-label network the explained class must be among an image's labels.
    """
    return None if sample.label is None else network.agrees(sample.label, predicted)


def shown_label(sample: Samples, predicted: Tensor) -> Tensor:
    """(N,) the label that a figure shows: the image's own, else the class that was predicted."""
    own = sample.label
    return own if own is not None and own.ndim == 1 else predicted.cpu()


def explained(maps: Tensor) -> Tensor:
    """(N,) whether each map (N, H, W) is other than zero: a relative change of nothing is not defined.

    Maps of no pixels, of an objective that needs none, count.
    """
    if maps[0].numel() == 0:
        return torch.ones(len(maps), dtype=torch.bool, device=maps.device)
    return maps.flatten(1).ne(0).any(1)
