"""Where networks meet ``linalg``: the rows of G, and the curvature of the map change.

Rows need Z != 0, because D has no gradient at zero; Z is drawn once per sample from the
seed, so that G is one fixed matrix however often it is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from upi import dissimilarity as dissimilarities
from upi.attacks.support.batches import batches
from upi.attacks.support.objective import MapChange, gradients, require_gradient
from upi.attacks.support.smoothing import Smoothing
from upi.core.distributed import shard
from upi.core.errors import ConfigError, NonFiniteError
from upi.core.types import Batch, Dissimilarity, Loader, Progress
from upi.data.cache import Recall
from upi.data.images import count_of, samples
from upi.linalg import Difference, Operator, RowOperator, Term
from upi.network.classifier import Classifier
from upi.perturbation.pattern import in_box
from upi.saliency import input_gradient


@dataclass(frozen=True)
class Source:
    """The images an operator runs over, and how they are explained.

    Solvers of several passes should give a ``recall``, so that clean images are explained once.
    """

    model: Classifier
    objective: MapChange
    loader: Loader
    correct_only: bool = False
    progress: Progress | None = None
    recall: Recall | None = None

    @property
    def dim(self) -> int:
        """Entries of an image; reads one batch and explains nothing."""
        return next(samples(self.loader)).x[0].numel()

    def batches(self) -> Iterator[Batch]:
        """One pass of prepared batches."""
        total = count_of(self.loader)
        found = batches(
            self.model, self.objective, self.loader, correct_only=self.correct_only, recall=self.recall
        )
        for batch in found:
            yield batch
            if self.progress is not None:
                self.progress(batch.index + 1, total)


@dataclass(frozen=True)
class RowPlan:
    """How the rows of G are drawn.

    Attributes:
        sigma: Deviation of the smoothing noise Z, above zero.
        draws: Draws of Z per image: further rows (gradient), or averaged in one (Stein).
        seed: Fixes Z.
        clip: Look at clip(x + Z) instead of x + Z.
        scale: ``"unit"`` gives every row length 1, so that a few images with huge gradients do not own
            the first vector; ``"none"`` leaves the rows as they are.
        centre: Perturbation (1, C, H, W) that the rows are taken around, x + centre + Z; None for 0.
        epoch: Number of the pass, which draws a Z of its own.
    """

    sigma: float
    draws: int
    seed: int
    clip: bool = False
    scale: str = "none"
    centre: Tensor | None = None
    epoch: int = 0

    def around(self, x: Tensor) -> Tensor:
        """x + centre."""
        return x if self.centre is None else x + self.centre.to(x)

    def seen(self, point: Tensor) -> Tensor:
        """The images the network sees for points x + Z."""
        return in_box(point) if self.clip else point


def gradient_rows(source: Source, batch: Batch, noise: Sequence[Tensor], plan: RowPlan) -> Iterator[Tensor]:
    """grad D(I(x_i), I(x_i + Z)) by differentiating through the map: (N, d) for each draw.

    Every draw is a row of its own. Averaged over Z the rows would tend to zero, since D is
    nearly even in Z; stacked, they say along which directions D rises.
    """
    for z in noise:
        point = plan.around(batch.x) + z
        seen = plan.seen(point)
        rows = gradients(source.model, source.objective, batch, seen, where="rows of G").gradient
        yield (rows * (seen == point) if plan.clip else rows).flatten(1)


def stein_rows(source: Source, batch: Batch, noise: Sequence[Tensor], plan: RowPlan) -> Iterator[Tensor]:
    """g_i = E_Z[Z D(I(x_i), I(x_i + Z))] / sigma^2 from map values only, (N, d).

    From each value the mean of the other draws is subtracted, which leaves the expectation
    alone and removes most of the variance.
    """
    draws = len(noise)
    values = torch.stack(
        [source.objective.worth(source.model, batch, plan.seen(plan.around(batch.x) + z)) for z in noise]
    )
    weights = (values - values.mean(0)) * draws / (draws - 1) if draws > 1 else values
    total = torch.zeros_like(batch.x)
    for weight, z in zip(weights, noise, strict=True):
        total += weight[:, None, None, None] * z
    yield (total / (draws * plan.sigma**2)).flatten(1)


#: How long rows are.
SCALES = ("unit", "none")


def unit_rows(rows: Tensor) -> Tensor:
    """Rows (N, d) of length 1, however small they were; zero rows stay zero."""
    tiny = torch.finfo(rows.dtype).tiny
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(tiny)  # squares of small numbers vanish
    length: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / length.clamp_min(tiny)


def margin_rows(source: Source, batch: Batch, plan: RowPlan) -> Tensor:
    """Unit gradients (N, d) of log p_c / (1 - p_c) at x_i + centre: the way to another prediction."""
    seen = plan.seen(plan.around(batch.x))
    return unit_rows(input_gradient(source.model, seen, batch.target, "log_odds").flatten(1))


ROWS: dict[str, Callable[[Source, Batch, Sequence[Tensor], RowPlan], Iterator[Tensor]]] = {
    "gradient": gradient_rows,
    "stein": stein_rows,
}


class GradientRows(RowOperator):
    """G^T G / n for the matrix G of per-image attack gradients; one pass per application.

    Attributes:
        total: Sum of the rows (d,) handed out so far, in float64: where D rises, as far as that does not
            depend on the image.

    Args:
        source: Images, model and objective.
        rows: ``"gradient"`` (double backward) or ``"stein"`` (map values only).
        plan: The smoothing noise.

    Raises:
        ZeroGradientError: (On iteration) the first block of rows is zero.
        NonFiniteError: (On iteration) a row has NaN or infinity.
    """

    def __init__(self, source: Source, *, rows: str, plan: RowPlan) -> None:
        self.source, self.row, self.kind, self.plan = source, ROWS[rows], rows, plan
        self.dim = source.dim
        self.total = torch.zeros(self.dim, dtype=torch.float64)

    def by_batch(self) -> Iterator[tuple[Batch, Iterator[Tensor]]]:
        """One pass: each batch with its blocks of rows (N, d), computed as they are asked for."""
        plan, first = self.plan, 0
        smoothing = Smoothing(plan.sigma, self.dim, seed=plan.seed, shard=shard(), epoch=plan.epoch)
        for batch in self.source.batches():
            count = len(batch)
            noise = [smoothing.draw(batch.x, first + draw * count) for draw in range(plan.draws)]
            yield batch, self._checked(batch, noise, first)
            first += count * plan.draws

    def _checked(self, batch: Batch, noise: Sequence[Tensor], first: int) -> Iterator[Tensor]:
        where = f"{self.kind} rows of G"
        for number, block in enumerate(self.row(self.source, batch, noise, self.plan)):
            if not bool(torch.isfinite(block).all()):
                raise NonFiniteError(f"{where}: batch {batch.index} gave NaN or infinity")
            if first + number == 0:
                require_gradient(block, where=where)
            rows = (unit_rows(block) if self.plan.scale == "unit" else block).cpu()
            self.total += rows.sum(0, dtype=torch.float64)
            yield rows

    def blocks(self) -> Iterator[Tensor]:
        for _, blocks in self.by_batch():
            yield from blocks


class PricedRows(Difference):
    """G^T G / n less a price on V^T V / m, V the gradients of the margin: directions that flip nothing.

    The authors' public scripts hold the seed of it; rows of V have length 1, so that a price of 1
    forbids as much as rows of G of length 1 want.

    Args:
        rows: The rows of G.
        price: At least 0.
    """

    def __init__(self, rows: GradientRows, price: float) -> None:
        self.rows, self.price, self.dim = rows, price, rows.dim

    @property
    def ratio(self) -> float:
        return 1 / self.rows.plan.draws if self.rows.kind == "gradient" else 1.0

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch, blocks in self.rows.by_batch():
            forbidden = margin_rows(self.rows.source, batch, self.rows.plan).cpu()
            for block in blocks:
                yield block, forbidden
                forbidden = forbidden[:0]  # once per image, however many draws it has


def _squared_relative_l2(clean: Tensor, perturbed: Tensor) -> Tensor:
    return dissimilarities.squared_l2(clean, perturbed) / dissimilarities.squared_l2(clean, 0 * clean)


def _squared_mass_center(clean: Tensor, perturbed: Tensor) -> Tensor:
    offset = dissimilarities.mass_center_offset(clean, perturbed)
    return offset.square().sum(1)


def quadratic_form(dissimilarity: Dissimilarity) -> Dissimilarity:
    """A form of D that is smooth with zero gradient at equal maps: D itself, or its square.

    Raises:
        ConfigError: D has no such form (top-k, target map).
    """
    if dissimilarity is dissimilarities.relative_l2:
        return _squared_relative_l2
    if dissimilarity is dissimilarities.mass_center:
        return _squared_mass_center
    if dissimilarity is dissimilarities.top_k or isinstance(dissimilarity, dissimilarities.TargetMap):
        name = dissimilarities.name_of(dissimilarity)
        raise ConfigError(f"{name} has no curvature at equal maps; use rows='gradient' or another one")
    return dissimilarity


class CurvatureOperator(Operator):
    """The mean over images of J_i^T M_i J_i: how sharply D rises around delta = 0.

    J_i is the Jacobian of delta -> I(x_i + delta), M_i the Hessian of D in its second map.
    No smoothing noise is involved. One application costs a product with J and one with
    J^T per image; the graph is built once per batch.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.form = quadratic_form(source.objective.dissimilarity)
        self.dim = source.dim

    def _hessian(self, clean: Tensor, tangent: Tensor) -> Tensor:
        maps = clean.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.form(clean, maps).sum(), maps, create_graph=True)
        (product,) = torch.autograd.grad(slope, maps, tangent)
        return product

    def _term(self, batch: Batch) -> Term:
        point = batch.x.clone().requires_grad_()
        with torch.enable_grad():
            maps = self.source.objective.saliency(self.source.model, point, batch.target)
            maps = maps + 0 * point.sum()  # a map that does not move still has a (zero) Jacobian
            dual = torch.zeros_like(maps, requires_grad=True)
            (pulled,) = torch.autograd.grad(maps, point, dual, create_graph=True)

        def product(vector: Tensor) -> Tensor:
            shift = vector.to(point).view(1, *point.shape[1:]).expand_as(point)
            (tangent,) = torch.autograd.grad(
                pulled, dual, shift, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            with torch.enable_grad():
                weight = self._hessian(batch.clean, tangent)
            (back,) = torch.autograd.grad(maps, point, weight, retain_graph=True)
            return back.sum(0).flatten().double().cpu()

        return Term(lambda block: torch.stack([product(v) for v in block.T], 1), len(batch))

    def terms(self) -> Iterator[Term]:
        for batch in self.source.batches():
            yield self._term(batch)

    def matmat(self, block: Tensor) -> Tensor:
        """The operator applied to (d, k).

        Raises:
            ZeroGradientError: The maps do not move to second order at all.
            NonFiniteError: The product has NaN or infinity.
        """
        product = super().matmat(block)
        if not bool(torch.isfinite(product).all()):
            raise NonFiniteError("curvature operator: NaN or infinity")
        require_gradient(product, where="curvature operator")
        return product
