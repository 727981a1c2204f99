"""Where saliency meets dissimilarity: the function of the perturbed image that attacks raise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.core.errors import ModelError
from upi.core.memory import in_halves
from upi.core.types import Dissimilarity, SaliencyMap
from upi.data.batches import Batch, CleanSide, mean_margin
from upi.network.frozen import FrozenNetwork
from upi.network.surrogate import View, Witness
from upi.saliency import check_maps, explain

#: What a map looks through: the network itself, or a surrogate of it.
Explained = FrozenNetwork | View


class Objective(Protocol):
    """What an ascent raises, sample by sample."""

    @property
    def passes(self) -> int:
        """Passes through the network that one image takes."""

    def clean(self, model: Explained, x: Tensor, target: Tensor) -> CleanSide:
        """What is needed of clean images (N, C, H, W) later: a function of them, image by image."""

    def values(self, model: Explained, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at perturbed images (N, C, H, W)."""


def margin_of(logits: Tensor, target: Tensor) -> Tensor:
    """Lead (N,) of the target's logit over the best other one."""
    own = logits.gather(1, target[:, None]).squeeze(1)
    return own - logits.scatter(1, target[:, None], -torch.inf).amax(1)


@dataclass(frozen=True)
class MapChange:
    """D(I(x), I(x')) minus a price for moving towards another prediction.

    With the logit margin m of the explained class over the best other one and its clean mean
    over the batch M, the price is ``prediction_price * relu(min(m(x), M / 2) - m(x')) / M``:
    nothing while the margin is kept or is comfortably large, then linear in what was lost.
    (Dividing by each image's own margin instead lets images near the boundary dominate.)

    Attributes:
        saliency: The map I.
        dissimilarity: The function D.
        prediction_price: At least 0; 0 ignores the prediction.
    """

    saliency: SaliencyMap
    dissimilarity: Dissimilarity
    prediction_price: float = 0.0

    @property
    def passes(self) -> int:
        """Passes through the network per image: the map's attribute of this name, or 1."""
        return int(getattr(self.saliency, "passes", 1))

    def clean(self, model: Explained, x: Tensor, target: Tensor) -> CleanSide:
        """Maps (N, H, W) of clean images, and their margins where predictions have a price."""

        def work(some: slice) -> CleanSide:
            witness = Witness(model, x[some])
            maps = explain(self.saliency, witness, witness.images, target[some])
            return CleanSide(maps, self._margins(witness, target[some]) if self.prediction_price else None)

        found = in_halves(work, len(x), owner=model.net, kind="maps")
        margins = [each.margin for each in found if each.margin is not None]
        return CleanSide(joined([each.maps for each in found]), joined(margins) if margins else None)

    @staticmethod
    @torch.no_grad()
    def _margins(witness: Witness, target: Tensor) -> Tensor:
        return margin_of(witness.logits, target)

    def values(self, model: Explained, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at ``perturbed`` (N, C, H, W); map and price share a pass."""
        witness = Witness(model, perturbed)
        value = self._change(batch, check_maps(self.saliency(witness, perturbed, batch.target), perturbed))
        return value - self._price(batch, witness.logits) if self.prediction_price else value

    def measured(self, model: Explained, batch: Batch, perturbed: Tensor) -> Tensor:
        """The same values (N,) without a graph."""

        def work(some: slice) -> Tensor:
            part = batch if some == slice(0, len(batch)) else part_of(batch, some)
            witness = Witness(model, perturbed[some])
            value = self._change(part, explain(self.saliency, witness, witness.images, part.target)).detach()
            with torch.no_grad():
                return value - self._price(part, witness.logits) if self.prediction_price else value

        return joined(in_halves(work, len(batch), owner=model.net, kind="maps"))

    def _change(self, batch: Batch, maps: Tensor) -> Tensor:
        value = self.dissimilarity(batch.clean, maps)
        if not isinstance(value, Tensor) or value.shape != (len(batch),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"a dissimilarity must return (N,) with N = {len(batch)}, got {got}")
        return value

    def _price(self, batch: Batch, logits: Tensor) -> Tensor:
        if batch.margin is None:
            raise ModelError("a price on predictions needs the clean margins: make batches with clean()")
        scale = mean_margin(batch.margin) if batch.scale is None else batch.scale
        lost = torch.minimum(batch.margin.clamp_min(0), scale / 2) - margin_of(logits, batch.target)
        return self.prediction_price * F.relu(lost) / scale


def joined(parts: list[Tensor]) -> Tensor:
    """Parts of a batch as one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True)
class PredictionChange:
    """Cross-entropy of the clean prediction, clipped per sample: the classification attack.

    Clipping keeps samples that are fooled already from dominating (Shafahi et al. 2020).

    Attributes:
        ceiling: Value at which a sample stops counting; 9 leaves a probability of 1e-4.
    """

    ceiling: float = 9.0

    @property
    def passes(self) -> int:
        """One."""
        return 1

    def clean(self, model: Explained, x: Tensor, target: Tensor) -> CleanSide:
        """An empty (N, 0, 0) in place of maps."""
        return CleanSide(x.new_zeros(x.shape[0], 0, 0))

    def values(self, model: Explained, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at ``perturbed`` (N, C, H, W)."""
        loss = F.cross_entropy(model(perturbed), batch.target, reduction="none")
        return loss.clamp_max(self.ceiling)


def explained_batch(
    objective: Objective, model: Explained, x: Tensor, target: Tensor, index: int = 0
) -> Batch:
    """Images with their classes and what the objective needs of the clean ones."""
    return Batch.of(x, target, objective.clean(model, x, target), index)


def split(batch: Batch, size: int, scale: Tensor | None) -> Iterator[Batch]:
    """Pieces of at most ``size`` images; ``scale`` is the mean margin that their prices are measured in."""
    for first in range(0, len(batch), size):
        yield part_of(batch, slice(first, first + size), scale)


def part_of(batch: Batch, some: slice, scale: Tensor | None = None) -> Batch:
    """Some images of a batch, with prices as in the whole of it.

    Args:
        batch: The whole.
        some: Which images.
        scale: Mean margin that prices are measured in; None takes that of the whole batch.
    """
    if scale is None and batch.margin is not None:
        scale = mean_margin(batch.margin) if batch.scale is None else batch.scale
    return replace(
        batch,
        x=batch.x[some],
        target=batch.target[some],
        clean=batch.clean[some],
        margin=None if batch.margin is None else batch.margin[some],
        scale=scale,
    )
