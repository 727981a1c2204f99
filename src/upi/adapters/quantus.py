"""Quantus (Hedström et al. 2023): its explanation functions as maps, and our perturbations in its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upi.adapters.base import AsModule, Reduced, library
from upi.core.types import Network
from upi.perturbation.pattern import Perturbation


@dataclass(frozen=True)
class Quantus(Reduced):
    """A function as ``quantus.explain`` as a map: (model, inputs, targets, ...) in NumPy. Evaluated only.

    Attributes:
        explain: The function; None takes ``quantus.explain``.
        words: Its further words, such as ``{"method": "Saliency"}``.
        reduce, normalize: As in ``upi.adapters.base.Reduced``.

    Raises:
        ModelError: (When called) the package is missing.
    """

    explain: Callable[..., np.ndarray[Any, Any]] | None = None
    _: KW_ONLY
    words: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,), without a graph."""
        explain = self.explain or library("quantus", "quantus").explain
        inputs, classes = x.detach().cpu().numpy(), target.cpu().numpy()
        with torch.enable_grad():
            found = explain(AsModule(model), inputs, classes, device=str(x.device), **self.words)
        return self._maps(np.asarray(found), x)


def perturb_func(perturbation: Perturbation) -> Callable[..., np.ndarray[Any, Any]]:
    """The perturbation as ``perturb_func`` of Quantus' robustness metrics, such as ``MaxSensitivity``.

    Images are in [0, 1], as everywhere in this library; what it returns is clipped to it. One sample is
    enough (``nr_samples=1``): the perturbation is always the same.
    """
    delta = perturbation.delta.numpy().reshape(-1)

    def perturbed(arr: np.ndarray[Any, Any], *args: Any, **words: Any) -> np.ndarray[Any, Any]:
        flat = arr.reshape(-1, delta.size)
        moved: np.ndarray[Any, Any] = np.clip(flat + delta, 0, 1).astype(arr.dtype).reshape(arr.shape)
        return moved

    return perturbed
