"""Leading eigenpairs of rows that are fewer than their entries, from the products of the rows.

A = sum over sets of rows of w R^T R. Every eigenvector whose value is not zero lies in the span of the rows,
so the products of all pairs of rows, one matrix product, hold the whole problem. Guards against iterations
that go over all rows dozens of times with a few columns each, which wait for memory and not for arithmetic;
and against lost digits: the pairs found are put to the test on the rows themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from upi.linalg.krylov import krylov
from upi.linalg.operator import Operator, Term
from upi.linalg.result import EigenResult

#: Bytes of rows that are looked at together.
PIECE = 256 * 2**20
#: Rows of a block of products; only the lower triangle of blocks is computed.
BLOCK = 1024
#: What is added to the diagonal, in units of its mean: above the rounding of float32, or of float64, and
#: below what matters.
RIDGE, FINE = 1e-6, 1e-13
#: Columns of the Krylov space at the most, and the side up to which a dense decomposition is as quick.
RANK, SIDE = 480, 512


@dataclass(frozen=True)
class Weighted:
    """Rows (n, d) and the weight of their products; below zero for what is forbidden."""

    rows: Tensor
    weight: float


class _Matrix(Operator):
    """A symmetric matrix (N, N)."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.dim = matrix, len(matrix)

    def terms(self) -> Iterator[Term]:
        yield Term(lambda block: self.matrix @ block, 1)


def _pieces(parts: Sequence[Weighted]) -> Iterator[tuple[slice, Tensor]]:
    """Columns of all rows, piece by piece, so that rows in a file are not all read at once.

    Few rows are taken in float64, many in their own precision.
    """
    count, dim = sum(len(part.rows) for part in parts), parts[0].rows.shape[1]
    width = max(1, PIECE // (parts[0].rows.element_size() * max(1, count)))
    for first in range(0, dim, width):
        some = slice(first, first + width)
        piece = torch.cat([part.rows[:, some] for part in parts])
        yield some, piece.double() if count <= SIDE else piece


def _products(parts: Sequence[Weighted]) -> Tensor:
    """Products (N, N) of all pairs of rows, summed over the pieces in float64."""
    count = sum(len(part.rows) for part in parts)
    found = torch.zeros(count, count, dtype=torch.float64)
    places = [slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]
    for _, piece in _pieces(parts):
        for number, here in enumerate(places):
            for there in places[: number + 1]:
                found[here, there] += piece[here] @ piece[there].T
    return found.tril() + found.tril(-1).T


def _inside(symmetric: Tensor, count: int, tolerance: float) -> tuple[Tensor, Tensor, int]:
    """Largest eigenvalues (k,) of a symmetric matrix, their vectors (N, k), and columns that were taken."""
    if len(symmetric) > SIDE:
        found = krylov(
            _Matrix(symmetric), components=count, keep=count, rank=RANK, tolerance=tolerance, pairs=count
        )
        if found.converged:
            return found.values, found.vectors.T, found.iterations
    values, vectors = torch.linalg.eigh(symmetric)
    return values.flip(0)[:count], vectors.flip(1)[:, :count], 1


def from_products(
    parts: Sequence[Weighted], *, components: int, keep: int, tolerance: float
) -> EigenResult | None:
    """Leading eigenpairs of A, or None where they do not pass the test.

    With the products K = R R^T = L L^T and the weights W of all rows, L^T W L has the eigenvalues of A;
    from its vector y comes the one of A, R^T W L y.

    Args:
        parts: Sets of rows (n, d), fewer than d together.
        components: Vectors returned, at most ``keep``.
        keep: Eigenvalues returned; all must be above zero.
        tolerance: Relative residual ||A v - theta v|| / theta_1 that the pairs must have.
    """
    products = _products(parts)
    weights = torch.cat([torch.full((len(p.rows),), p.weight, dtype=torch.float64) for p in parts])
    ridge = (FINE if len(weights) <= SIDE else RIDGE) * float(products.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(products + ridge * torch.eye(len(weights), dtype=torch.float64))
    if int(failed) or not ridge > 0:
        return None
    symmetric = factor.T @ (weights[:, None] * factor)
    rough, vectors, taken = _inside(symmetric, keep, tolerance / 10)
    if not bool((rough > RIDGE * rough[0]).all()):
        return None
    found = _combined(parts, (weights[:, None] * (factor @ vectors)).T)
    found = torch.nn.functional.normalize(found, dim=1)
    seen = _seen(parts, found)
    values = (weights * seen.square()).sum(1)  # Rayleigh quotients: nearer than what the ridge leaves
    errors = _combined(parts, weights * seen) - values[:, None] * found
    residual = float(torch.linalg.vector_norm(errors, dim=1).max() / values[0])
    if not residual <= tolerance:
        return None
    return EigenResult(values, found[:components], residual, taken, converged=True, cosine_bound=1.0)


def _combined(parts: Sequence[Weighted], mixing: Tensor) -> Tensor:
    """Combinations (k, d) of all rows."""
    return torch.cat([(mixing.to(piece) @ piece).double() for _, piece in _pieces(parts)], 1)


def _seen(parts: Sequence[Weighted], vectors: Tensor) -> Tensor:
    """Products (k, N) of vectors (k, d) with all rows."""
    return torch.stack(
        [(vectors[:, some].to(piece) @ piece.T).double() for some, piece in _pieces(parts)]
    ).sum(0)
