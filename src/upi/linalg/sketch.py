"""Leading eigenpairs in one pass and bounded memory, with a proven certificate.

Rows: Frequent Directions (Ghashami, Liberty, Phillips, Woodruff 2016) in the form that shrinks
only the last fifth of the kept directions (Desai, Ghashami, Phillips 2016). The sketch B
satisfies 0 <= ||G v||^2 - ||B v||^2 <= shed for every unit v, where ``shed`` is the sum of
what was subtracted, so quality is known, not hoped for. Operators without rows have nothing
to stream; they go to block Lanczos in the same memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from upi.linalg.difference import Difference, signed_leading
from upi.linalg.krylov import krylov
from upi.linalg.operator import Operator, RowOperator
from upi.linalg.result import EigenResult

#: Proven |cos| to the top vector from which a sketch counts as converged.
CERTIFIED = 0.99


class FrequentDirections:
    """A running sketch of at most ``2 * rank`` rows of width ``dim`` (float64).

    Attributes:
        shed: Sum of the squared singular values subtracted so far.
        count: Rows seen.
    """

    def __init__(self, dim: int, rank: int) -> None:
        self.rank = rank
        self.spared = int(0.8 * rank)
        self.buffer = torch.zeros(2 * rank, dim, dtype=torch.float64)
        self.filled = 0
        self.count = 0
        self.shed = 0.0
        self.kept = torch.zeros(0, dtype=torch.float64)  # squared lengths of the rows a shrinking left

    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Squared singular values and left singular vectors (columns) of the filled buffer."""
        rows, old = self.buffer[: self.filled], len(self.kept)
        products = torch.zeros(self.filled, self.filled, dtype=torch.float64)
        products[:old, :old] = torch.diag(self.kept)  # what was kept is orthogonal
        products[old:] = rows[old:] @ rows.T
        squares, left = torch.linalg.eigh(products)  # reads the lower half
        return squares.flip(0).clamp_min(0), left.flip(1)

    def _shrink(self) -> None:
        squares, left = self._spectrum()
        cut = float(squares[self.rank])
        kept = squares[: self.rank].clone()
        kept[self.spared :] -= cut
        kept = kept.clamp_min(0)
        shorter = (kept / squares[: self.rank].clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
        self.buffer[: self.rank] = (left[:, : self.rank] * shorter).T @ self.buffer[: self.filled]
        self.filled, self.kept = self.rank, kept
        self.shed += cut

    def update(self, rows: Tensor) -> None:
        """Take in rows (b, d); the buffer is halved whenever it is full."""
        self.count += rows.shape[0]
        while rows.shape[0]:
            if self.filled == self.buffer.shape[0]:
                self._shrink()
            take = min(rows.shape[0], self.buffer.shape[0] - self.filled)
            self.buffer[self.filled : self.filled + take] = rows[:take]
            self.filled += take
            rows = rows[take:]

    @property
    def rows(self) -> Tensor:
        """The sketch B (r, d): B^T B is what is left of G^T G."""
        return self.buffer[: self.filled]

    def result(self, components: int, keep: int) -> EigenResult:
        """Eigenpairs of B^T B / n, with the bound on the first vector's cosine."""
        squares, left = self._spectrum()
        right = left[:, :components].T @ self.buffer[: self.filled]
        norms = torch.linalg.vector_norm(right, dim=1, keepdim=True)
        right = right / norms.clamp_min(torch.finfo(torch.float64).tiny)
        gap = float(squares[0] - squares[1]) if len(squares) > 1 else float(squares[0])
        bound = max(0.0, 1 - self.shed / gap) ** 0.5 if gap > 0 else float(self.shed == 0)
        count = max(components, keep)
        values = squares[:count] / self.count
        return EigenResult(values, right, float("nan"), 1, converged=bound >= CERTIFIED, cosine_bound=bound)


def _difference(operator: Difference, components: int, keep: int, rank: int) -> EigenResult:
    """Two sketches, one pass; the small problem of the two is solved exactly.

    With ||G v||^2 and price-weighted ||V v||^2 known up to what each sketch shed, every Rayleigh
    quotient is known up to their sum, which bounds the angle as for one sketch.
    """
    wanted, forbidden = (FrequentDirections(operator.dim, max(rank, components)) for _ in range(2))
    for rows, others in operator.pairs():
        wanted.update(rows.double())
        forbidden.update(others.double())
    weight = operator.price * wanted.count / max(1, forbidden.count)
    values, vectors = signed_leading(wanted.rows, forbidden.rows, weight, max(components, keep))
    gap = float(values[0] - values[1]) if len(values) > 1 else float(values[0])
    shed = wanted.shed + weight * forbidden.shed
    bound = max(0.0, 1 - shed / gap) ** 0.5 if gap > 0 else 0.0
    return EigenResult(
        values / wanted.count,
        vectors[:components],
        float("nan"),
        1,
        converged=bound >= CERTIFIED,
        cosine_bound=bound,
    )


def sketch(
    operator: Operator, *, components: int = 1, keep: int = 20, rank: int = 64, seed: int = 0
) -> EigenResult:
    """Leading eigenpairs of G^T G / n in exactly one pass over the rows.

    Memory is ``2 * rank * d`` floats whatever the number of rows. If fewer than ``2 * rank``
    rows come in, the result is exact.

    Args:
        operator: A ``RowOperator`` or a ``Difference``, which takes two sketches; any other goes to
            ``krylov``, which takes several passes.
        components: Vectors returned.
        keep: Eigenvalues returned at the most.
        rank: Sketch size l; 64 keeps the certificate useful for the spectra seen on image
            classifiers while 2 * 64 * 3 * 224^2 floats still fit into 150 MB.
        seed: Fixes the start of ``krylov``.
    """
    if isinstance(operator, Difference):
        return _difference(operator, components, keep, rank)
    if not isinstance(operator, RowOperator):
        return krylov(operator, components=components, keep=keep, rank=rank, seed=seed)
    directions = FrequentDirections(operator.dim, max(rank, components))
    for rows in operator.blocks():
        directions.update(rows.double())
    return directions.result(components, keep)
