"""Where saliency meets dissimilarity: the function of the perturbed image that attacks raise.

Guards against the silent zero: ReLU networks with logit maps have no attack gradient, and
returning noise as a result would look like a weak attack instead of a missing one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.core.errors import ModelError, NonFiniteError, ZeroGradientError
from upi.core.types import Batch, Dissimilarity, Remember, SaliencyMap
from upi.network.classifier import Classifier
from upi.network.overheard import Overheard
from upi.saliency import check_maps, explain


class Objective(Protocol):
    """What an ascent raises, sample by sample."""

    @property
    def passes(self) -> int:
        """Passes through the network that one image takes."""

    def batch(
        self,
        model: Classifier,
        x: Tensor,
        target: Tensor,
        index: int = 0,
        *,
        remember: Remember | None = None,
    ) -> Batch:
        """Images (N, C, H, W) with whatever of the clean ones is needed later."""

    def values(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at perturbed images (N, C, H, W)."""


@dataclass(frozen=True)
class Gradients:
    """Values and their gradients with respect to each perturbed image."""

    values: Tensor  # (N,)
    gradient: Tensor  # (N, C, H, W); samples are independent, so row i is d value_i / d x_i


def _rows(
    x: Tensor, target: Tensor, remember: Remember | None
) -> Callable[[str, Callable[[Tensor, Tensor], Tensor]], Tensor]:
    """(what, function of images and classes) to its rows for all images, computed where not known."""

    def rows(what: str, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        if remember is None:
            return function(x, target)
        return remember(
            what,
            lambda places: (
                function(x, target)
                if len(places) == len(x)
                else function(x[places.to(x.device)], target[places.to(x.device)])
            ),
        )

    return rows


def _scale(margin: Tensor) -> Tensor:
    """Mean margin; where the surrogate classifies every image otherwise, the mean of its size."""
    mean = margin.clamp_min(0).mean()
    return torch.where(mean > 0, mean, margin.abs().mean().clamp_min(1e-6))


def _margin(logits: Tensor, target: Tensor) -> Tensor:
    own = logits.gather(1, target[:, None]).squeeze(1)
    return own - logits.scatter(1, target[:, None], -torch.inf).amax(1)


class _Shared:
    """A classifier that runs once on the images it was last given: map and price share a pass.

    Whether the images are the same is a matter of identity, so a map that looks at other
    images (integrated gradients) simply runs the network on them.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model
        self.last: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.last is not None and self.last[0] is x:
            return self.last[1]
        logits = self.model(x)
        if x.requires_grad and torch.is_grad_enabled():
            self.last = (x, logits)
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


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

    def batch(
        self,
        model: Classifier,
        x: Tensor,
        target: Tensor,
        index: int = 0,
        *,
        remember: Remember | None = None,
    ) -> Batch:
        """Images with the maps (N, H, W) of the clean ones, and their margins where they have a price."""

        def maps(x: Tensor, target: Tensor) -> Tensor:
            return explain(self.saliency, model, x, target)

        @torch.no_grad()
        def margins(x: Tensor, target: Tensor) -> Tensor:
            return _margin(model(x), target)

        rows = _rows(x, target, remember)
        margin = rows("margin", margins) if self.prediction_price else None
        return Batch(x, target, rows("map", maps), index, margin)

    def values(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at ``perturbed`` (N, C, H, W)."""
        network = _Shared(model) if self.prediction_price else model
        value = self._change(batch, check_maps(self.saliency(network, perturbed, batch.target), perturbed))
        return value - self._price(batch, network(perturbed)) if self.prediction_price else value

    def change(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """D(I(x), I(x')) (N,) without a graph and without the price."""
        return self._change(batch, explain(self.saliency, model, perturbed, batch.target)).detach()

    def worth(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """D(I(x), I(x')) less the price (N,), without a graph; map and price share a pass."""
        if not self.prediction_price:
            return self.change(model, batch, perturbed)
        network = Overheard(model)
        value = self._change(batch, explain(self.saliency, network, perturbed, batch.target)).detach()
        with torch.no_grad():
            logits = network.logits(perturbed)
            return value - self._price(batch, model(perturbed) if logits is None else logits)

    def _change(self, batch: Batch, maps: Tensor) -> Tensor:
        value = self.dissimilarity(batch.clean, maps)
        if not isinstance(value, Tensor) or value.shape != (len(batch),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"a dissimilarity must return (N,) with N = {len(batch)}, got {got}")
        return value

    def _price(self, batch: Batch, logits: Tensor) -> Tensor:
        if batch.margin is None:
            raise ModelError("a price on predictions needs the clean margins: make batches with batch()")
        scale = _scale(batch.margin) if batch.scale is None else batch.scale
        lost = torch.minimum(batch.margin.clamp_min(0), scale / 2) - _margin(logits, batch.target)
        return self.prediction_price * F.relu(lost) / scale


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

    def batch(
        self,
        model: Classifier,
        x: Tensor,
        target: Tensor,
        index: int = 0,
        *,
        remember: Remember | None = None,
    ) -> Batch:
        """Images with an empty (N, 0, 0) in place of maps."""
        return Batch(x, target, x.new_zeros(x.shape[0], 0, 0), index)

    def values(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at ``perturbed`` (N, C, H, W)."""
        loss = F.cross_entropy(model(perturbed), batch.target, reduction="none")
        return loss.clamp_max(self.ceiling)


#: Images times passes that one graph may hold, unless the batch itself is larger.
NODES = 128


def parts(objective: Objective, batch: Batch, perturbed: Tensor) -> Iterator[tuple[Batch, Tensor]]:
    """The batch in pieces whose graphs stay small however many passes a map takes."""
    size = max(1, max(NODES, len(batch)) // objective.passes)
    if size >= len(batch):
        yield batch, perturbed
        return
    pieces = split(batch, size, None if batch.margin is None else _scale(batch.margin))
    yield from zip(pieces, torch.split(perturbed, size), strict=True)


def split(batch: Batch, size: int, scale: Tensor | None) -> Iterator[Batch]:
    """Pieces of at most ``size`` images; ``scale`` is the mean margin that their prices are measured in."""
    for first in range(0, len(batch), size):
        some = slice(first, first + size)
        margin = None if batch.margin is None else batch.margin[some]
        yield Batch(batch.x[some], batch.target[some], batch.clean[some], batch.index, margin, scale)


def scale_of(prepared: Sequence[Batch]) -> Tensor | None:
    """Mean margin over several batches; None where they have none."""
    margins = [batch.margin for batch in prepared if batch.margin is not None]
    return _scale(torch.cat(margins)) if margins else None


def rise(model: Classifier, objective: Objective, batch: Batch, perturbed: Tensor) -> Gradients:
    """Values and per-sample gradients by one backward pass of the summed objective."""
    point = perturbed.detach().requires_grad_()
    with torch.enable_grad():
        values = objective.values(model, batch, point)
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), point, allow_unused=True)
    return Gradients(values.detach(), torch.zeros_like(point) if gradient is None else gradient)


#: (model, objective, batch, perturbed) to values and gradients: ``rise``, or a compiled one.
Rise = Callable[[Classifier, Objective, Batch, Tensor], Gradients]


def gradients(
    model: Classifier,
    objective: Objective,
    batch: Batch,
    perturbed: Tensor,
    *,
    where: str,
    step: Rise = rise,
) -> Gradients:
    """Values and per-sample gradients; maps of many passes are taken piece by piece.

    Raises:
        NonFiniteError: A value or gradient is NaN or infinite; names ``where`` and the samples.
    """
    found = [step(model, objective, part, point) for part, point in parts(objective, batch, perturbed)]
    values = torch.cat([part.values for part in found]) if len(found) > 1 else found[0].values
    gradient = torch.cat([part.gradient for part in found]) if len(found) > 1 else found[0].gradient
    bad = ~(torch.isfinite(values) & torch.isfinite(gradient).flatten(1).all(1))
    if bad.any():
        raise NonFiniteError(
            f"{where}: batch {batch.index} gave NaN or infinity in samples {bad.nonzero()[:8, 0].tolist()}"
            "; the perturbation was not changed"
        )
    return Gradients(values, gradient)


def require_gradient(gradient: Tensor, *, where: str) -> None:
    """Refuse an attack gradient that is exactly zero for every sample.

    Raises:
        ZeroGradientError: With the likely causes and the remedy of each.
    """
    if bool((gradient != 0).any()):
        return
    raise ZeroGradientError(
        f"{where}: the attack gradient is exactly zero for every sample. A piecewise-linear (ReLU) "
        "network with a logit map has none: fit with the softplus surrogate (surrogate=..., a number; if "
        "it is on, the network's activation is not one it knows), "
        "explain the softmax score (saliency=upi.saliency.Gradient(score='softmax')), or use "
        "UPIPCA(rows='stein'), which needs map values only. A custom map must stay attached to "
        "the images it is given; the map of a linear model does not move at all."
    )
