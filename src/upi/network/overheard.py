"""Predictions overheard while images are explained: the same pass gives map and logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from upi.network.classifier import Classifier


class Overheard:
    """The network while it is explained: predictions on the very images that it saw cost nothing."""

    def __init__(self, model: Classifier) -> None:
        self.model = model
        self.seen: tuple[int, torch.Size, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        self.seen = x.data_ptr(), x.shape, logits.detach()
        return logits

    def logits(self, x: Tensor) -> Tensor | None:
        """Logits (N, K) of ``x``, which the caller has kept alive, if the network saw it last."""
        if self.seen is not None and self.seen[:2] == (x.data_ptr(), x.shape):
            return self.seen[2]
        return None

    def predict(self, x: Tensor) -> Tensor:
        """Classes (N,) of ``x``."""
        logits = self.logits(x)
        return self.model.predict(x) if logits is None else logits.argmax(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
