"""Where networks meet ``linalg``: the rows of G.

Rows need Z != 0, because D has no gradient at zero; Z is drawn once per sample from the
seed, so that G is one fixed matrix however often it is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from upi.attacks.support.gradients import boxed_gradients, require_gradient
from upi.attacks.support.objective import MapChange
from upi.attacks.support.smoothing import Smoothing
from upi.core.distributed import collected, jointly, leads, team
from upi.core.errors import NonFiniteError
from upi.core.memory import in_halves
from upi.core.types import Loader, Progress
from upi.data.batches import Batch, Share, shares
from upi.data.cache import ImageCache
from upi.data.images import count_of, images_of, samples
from upi.linalg import Difference, RowOperator
from upi.network.surrogate import Surrogate
from upi.perturbation.pattern import in_box
from upi.saliency import input_gradient


@dataclass(frozen=True)
class ExplainedImages:
    """The images an operator runs over, and how they are explained.

    Solvers of several passes should give a ``cache``, so that clean images are explained once.
    """

    surrogate: Surrogate
    objective: MapChange
    loader: Loader
    correct_only: bool = False
    progress: Progress | None = None
    cache: ImageCache | None = None
    kept: MapChange | None = None  # whose clean side is kept, where several objectives share a cache

    @property
    def dim(self) -> int:
        """Entries of an image; reads one batch and explains nothing."""
        return next(samples(self.loader)).x[0].numel()

    def shares(self) -> Iterator[Share]:
        """One pass of prepared batches, as far as they are this worker's."""
        total = count_of(self.loader)
        prepared = shares(
            self.surrogate.network,
            partial((self.kept or self.objective).clean, self.surrogate),
            self.loader,
            correct_only=self.correct_only,
            cache=self.cache,
        )
        for share in prepared:
            yield share
            if self.progress is not None:
                self.progress(share.index + 1, total)


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


def gradient_rows(
    images: ExplainedImages, batch: Batch, noise: Sequence[Tensor], plan: RowPlan
) -> Iterator[Tensor]:
    """grad D(I(x_i), I(x_i + Z)) by differentiating through the map: (N, d) for each draw.

    Every draw is a row of its own. Averaged over Z the rows would tend to zero, since D is
    nearly even in Z; stacked, they say along which directions D rises.
    """
    for z in noise:
        point = plan.around(batch.x) + z
        here = boxed_gradients(
            images.surrogate, images.objective, batch, point, clip=plan.clip, where="rows of G"
        )
        yield here.gradient.flatten(1)


def stein_rows(
    images: ExplainedImages, batch: Batch, noise: Sequence[Tensor], plan: RowPlan
) -> Iterator[Tensor]:
    """g_i = E_Z[Z D(I(x_i), I(x_i + Z))] / sigma^2 from map values only, (N, d).

    From each value the mean of the other draws is subtracted, which leaves the expectation
    alone and removes most of the variance.
    """
    draws = len(noise)
    values = torch.stack(
        [
            images.objective.measured(images.surrogate, batch, plan.seen(plan.around(batch.x) + z))
            for z in noise
        ]
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


def margin_rows(images: ExplainedImages, batch: Batch, plan: RowPlan) -> Tensor:
    """Unit gradients (N, d) of log p_c / (1 - p_c) at x_i + centre: the way to another prediction."""
    seen = plan.seen(plan.around(batch.x))

    def work(some: slice) -> Tensor:
        return input_gradient(images.surrogate, seen[some], batch.target[some], "log_odds").flatten(1)

    return unit_rows(torch.cat(in_halves(work, len(seen), owner=images.surrogate.net, kind="maps")))


ROWS: dict[str, Callable[[ExplainedImages, Batch, Sequence[Tensor], RowPlan], Iterator[Tensor]]] = {
    "gradient": gradient_rows,
    "stein": stein_rows,
}


class GradientRows(RowOperator):
    """G^T G / n for the matrix G of per-image attack gradients; one pass per application.

    Attributes:
        total: Sum of the rows (d,) handed out so far, in float64: where D rises, as far as that does not
            depend on the image.

    Args:
        images: Images, how they are explained, and the objective.
        rows: ``"gradient"`` (double backward) or ``"stein"`` (map values only).
        plan: The smoothing noise.

    Raises:
        ZeroGradientError: (On iteration) the first block of rows is zero.
        NonFiniteError: (On iteration) a row has NaN or infinity.
    """

    def __init__(self, images: ExplainedImages, *, rows: str, plan: RowPlan) -> None:
        self.images, self.row, self.kind, self.plan = images, ROWS[rows], rows, plan
        self.dim = images.dim
        self.expected = images_of(images.loader) * self.per_image
        self.total = torch.zeros(self.dim, dtype=torch.float64)

    def by_batch(self) -> Iterator[tuple[Share, Iterator[Tensor]]]:
        """One pass: each batch with its blocks of rows (N, d), one for each draw, computed when asked for.

        Of several workers the leading one gets the rows of all, in the order of the images; the others get
        blocks without a row, as many.
        """
        smoothing = Smoothing(self.plan.sigma, self.dim, seed=self.plan.seed, epoch=self.plan.epoch)
        fresh = True
        for share in self.images.shares():
            whole = share.cut == 1 and team().size == 1
            blocks = (
                self._of(share.pieces[0], share, smoothing) if whole else iter(self._all(share, smoothing))
            )
            yield share, self._counted(blocks, first=fresh)
            fresh = False

    def _counted(self, blocks: Iterator[Tensor], *, first: bool) -> Iterator[Tensor]:
        """The blocks, added to the sum of all rows; the very first must not be zero."""
        for number, rows in enumerate(blocks):
            if first and number == 0 and leads():
                require_gradient(rows, where=f"{self.kind} rows of G")
            self.total += rows.sum(0, dtype=torch.float64)
            yield rows

    def _all(self, share: Share, smoothing: Smoothing) -> list[Tensor]:
        """A batch's blocks, of the rows of all pieces."""
        own = jointly(lambda: {each.piece: list(self._of(each, share, smoothing)) for each in share.pieces})
        whole = collected(own)
        if whole is None:
            return [torch.zeros(0, self.dim) for _ in range(self.per_image)]
        return [torch.cat(block) for block in zip(*whole, strict=True)]

    @property
    def per_image(self) -> int:
        """Rows of one image."""
        return self.plan.draws if self.kind == "gradient" else 1

    def _of(self, batch: Batch, share: Share, smoothing: Smoothing) -> Iterator[Tensor]:
        """Blocks of rows of a piece; their noise depends on the place of the piece in the pass."""
        first = (share.first + batch.piece * share.size) * self.plan.draws
        noise = [smoothing.draw(batch.x, first + draw * len(batch)) for draw in range(self.plan.draws)]
        for block in self.row(self.images, batch, noise, self.plan):
            if not bool(torch.isfinite(block).all()):
                raise NonFiniteError(f"{self.kind} rows of G: batch {batch.index} gave NaN or infinity")
            yield (unit_rows(block) if self.plan.scale == "unit" else block).cpu()

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
        self.rows, self.price, self.dim, self.expected = rows, price, rows.dim, rows.expected

    @property
    def ratio(self) -> float:
        return 1 / self.rows.per_image

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for share, blocks in self.rows.by_batch():
            forbidden = self._forbidden(share)
            for block in blocks:
                yield block, forbidden
                forbidden = forbidden[:0]  # once per image, however many draws it has

    def _forbidden(self, share: Share) -> Tensor:
        """Rows of V of a batch."""
        images, plan = self.rows.images, self.rows.plan
        own = jointly(lambda: {each.piece: margin_rows(images, each, plan).cpu() for each in share.pieces})
        whole = collected(own)
        return torch.zeros(0, self.dim) if whole is None else torch.cat(whole)
