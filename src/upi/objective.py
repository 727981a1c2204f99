"""Where saliency meets dissimilarity: the function of the perturbed image that attacks raise.

Guards against the silent zero: ReLU networks with logit maps have no attack gradient, and
returning noise as a result would look like a weak attack instead of a missing one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.classifier import Classifier
from upi.errors import DataError, ModelError, NonFiniteError, ZeroGradientError
from upi.loading import Remembered, is_static, samples
from upi.saliency import check_maps, explain
from upi.types import Batch, Dissimilarity, Loader, SaliencyMap, Samples


class Objective(Protocol):
    """What an ascent raises, sample by sample."""

    def clean(self, model: Classifier, x: Tensor, target: Tensor) -> Tensor:
        """Whatever of the clean image is needed later, (N, H, W)."""

    def values(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at perturbed images (N, C, H, W)."""


@dataclass(frozen=True)
class Gradients:
    """Values and their gradients with respect to each perturbed image."""

    values: Tensor  # (N,)
    gradient: Tensor  # (N, C, H, W); samples are independent, so row i is d value_i / d x_i


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

    def clean(self, model: Classifier, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of the clean images."""
        return explain(self.saliency, model, x, target)

    def values(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at ``perturbed`` (N, C, H, W)."""
        network = _Shared(model) if self.prediction_price else model
        value = self._change(batch, check_maps(self.saliency(network, perturbed, batch.target), perturbed))
        return value - self._price(network, batch, perturbed) if self.prediction_price else value

    def change(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """D(I(x), I(x')) (N,) without a graph and without the price."""
        return self._change(batch, explain(self.saliency, model, perturbed, batch.target)).detach()

    def worth(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """D(I(x), I(x')) less the price (N,), without a graph."""
        value = self.change(model, batch, perturbed)
        if not self.prediction_price:
            return value
        with torch.no_grad():
            return value - self._price(model, batch, perturbed)

    def _change(self, batch: Batch, maps: Tensor) -> Tensor:
        value = self.dissimilarity(batch.clean, maps)
        if not isinstance(value, Tensor) or value.shape != (len(batch),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"a dissimilarity must return (N,) with N = {len(batch)}, got {got}")
        return value

    def _price(self, model: Classifier | _Shared, batch: Batch, perturbed: Tensor) -> Tensor:
        with torch.no_grad():
            margin = _margin(model(batch.x), batch.target)
            clean = margin.clamp_min(0)
            scale = clean.mean()  # zero where the surrogate classifies every image otherwise
            scale = torch.where(scale > 0, scale, margin.abs().mean().clamp_min(1e-6))
        lost = torch.minimum(clean, scale / 2) - _margin(model(perturbed), batch.target)
        return self.prediction_price * F.relu(lost) / scale


@dataclass(frozen=True)
class PredictionChange:
    """Cross-entropy of the clean prediction, clipped per sample: the classification attack.

    Clipping keeps samples that are fooled already from dominating (Shafahi et al. 2020).

    Attributes:
        ceiling: Value at which a sample stops counting; 9 leaves a probability of 1e-4.
    """

    ceiling: float = 9.0

    def clean(self, model: Classifier, x: Tensor, target: Tensor) -> Tensor:
        """Nothing is needed: an empty (N, 0, 0)."""
        return x.new_zeros(x.shape[0], 0, 0)

    def values(self, model: Classifier, batch: Batch, perturbed: Tensor) -> Tensor:
        """Values (N,) at ``perturbed`` (N, C, H, W)."""
        loss = F.cross_entropy(model(perturbed), batch.target, reduction="none")
        return loss.clamp_max(self.ceiling)


def prepare(
    model: Classifier, objective: Objective, sample: Samples, *, correct_only: bool = False
) -> Batch | None:
    """Predict, optionally keep correctly classified samples, and explain the clean images.

    The explained class is the prediction of the network itself, the clean map that of the
    surrogate where one is active. Images whose clean map is zero everywhere are left out: a
    relative change of nothing is not defined. None if no sample is left.
    """
    x = model.place(sample.x)
    target = model.predict(x)
    if correct_only:
        if sample.label is None:
            raise DataError(f"batch {sample.index}: labels are needed to keep correctly classified images")
        keep = target == sample.label.to(target.device)
        x, target = x[keep], target[keep]
    if x.shape[0] == 0:
        return None
    batch = Batch(x, target, objective.clean(model, x, target), sample.index)
    alive = batch.clean.flatten(1).ne(0).any(1) | (batch.clean[0].numel() == 0)
    return batch.take(alive) if alive.any() else None


def batches(
    model: Classifier, objective: Objective, loader: Loader, *, correct_only: bool = False
) -> Iterator[Batch]:
    """One pass over the loader as prepared batches.

    Raises:
        DataError: No image, or none that is classified correctly where that is asked for.
    """
    seen, found = 0, False
    for sample in samples(loader):
        seen += sample.x.shape[0]
        batch = prepare(model, objective, sample, correct_only=correct_only)
        if batch is not None:
            found = True
            yield batch
    if not found:
        reason = "is classified correctly and " if correct_only else ""
        raise DataError(f"none of the {seen} images {reason}has a map that is not zero: nothing to explain")


def endless_batches(
    model: Classifier, objective: Objective, loader: Loader, *, correct_only: bool = False
) -> Iterator[Batch]:
    """Prepared batches without end; those of a static loader are explained only once."""
    passes: Iterable[Batch] | None = None
    if is_static(loader):
        passes = Remembered(batches(model, objective, loader, correct_only=correct_only))
    while True:
        yield from passes or batches(model, objective, loader, correct_only=correct_only)


def gradients(
    model: Classifier, objective: Objective, batch: Batch, perturbed: Tensor, *, where: str
) -> Gradients:
    """Values and per-sample gradients by one backward pass of the summed objective.

    Raises:
        NonFiniteError: A value or gradient is NaN or infinite; names ``where`` and the samples.
    """
    point = perturbed.detach().requires_grad_()
    with torch.enable_grad():
        values = objective.values(model, batch, point)
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), point, allow_unused=True)
        else:
            gradient = None
    gradient = torch.zeros_like(point) if gradient is None else gradient
    bad = ~(torch.isfinite(values) & torch.isfinite(gradient).flatten(1).all(1))
    if bad.any():
        raise NonFiniteError(
            f"{where}: batch {batch.index} gave NaN or infinity in samples {bad.nonzero()[:8, 0].tolist()}"
            "; the perturbation was not changed"
        )
    return Gradients(values.detach(), gradient)


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
