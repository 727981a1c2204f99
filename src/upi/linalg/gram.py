"""Exact leading eigenpairs of stored rows, or of a dense matrix where rows cannot be kept.

Small problems are decomposed densely in float64. Larger ones are iterated on the stored rows,
from the side that is shorter, until the residuals leave nothing to improve: a dense decomposition of a
few thousand rows would take longer than computing them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from upi.core.errors import ConfigError
from upi.linalg.difference import Difference, MatrixDifference, signed_leading
from upi.linalg.krylov import krylov
from upi.linalg.operator import Operator, RowOperator, Term
from upi.linalg.result import EigenResult

#: Largest dense matrix side: 12,288 = 3 x 64 x 64, 1.2 GB in float64.
MAX_SIDE = 12_288
#: Side up to which a dense decomposition is the quickest.
DENSE_SIDE = 512
#: Bytes of rows that are kept.
STORED = 2 * 2**30
#: Relative residual at which an iterated pair counts as exact: the error of its value is the square.
RESIDUAL = 1e-5
#: Columns of the Krylov space at the most.
RANK = 480


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:count].clamp_min(0), vectors.flip(1)[:, :count].T.contiguous()


def _exact(values: Tensor, vectors: Tensor, components: int) -> EigenResult:
    return EigenResult(values, vectors[:components], 0.0, 1, converged=True, cosine_bound=1.0)


class _Stored(Operator):
    """G^T G / n, or G G^T / n where rows are fewer than columns; products in the rows' precision."""

    def __init__(self, rows: Tensor) -> None:
        self.wide = rows.shape[0] < rows.shape[1]
        self.rows = rows.T if self.wide else rows
        self.dim, self.count = min(rows.shape), rows.shape[0]

    def _product(self, block: Tensor) -> Tensor:
        # few long rows times the matrix: ten times faster than the matrix times a few columns
        across = block.T.to(self.rows).contiguous() @ self.rows.T
        product: Tensor = (across @ self.rows).T
        return product.double()

    def terms(self) -> Iterator[Term]:
        yield Term(self._product, self.count)

    def right(self, vectors: Tensor) -> Tensor:
        """Right singular vectors (k, d) from those of the shorter side."""
        if not self.wide:
            return vectors
        projected = (vectors.to(self.rows) @ self.rows.T).double()
        norms = torch.linalg.vector_norm(projected, dim=1, keepdim=True)
        unit: Tensor = projected / norms.clamp_min(torch.finfo(torch.float64).tiny)
        return unit


def _dense(rows: Tensor, components: int, keep: int) -> EigenResult:
    g = rows.double()
    if g.shape[0] > g.shape[1]:
        return _exact(*_leading(g.T @ g / g.shape[0], keep), components)
    values, left = _leading(g @ g.T / g.shape[0], keep)
    right = left @ g
    norms = torch.linalg.vector_norm(right, dim=1, keepdim=True)
    return _exact(values, right / norms.clamp_min(torch.finfo(torch.float64).tiny), components)


def _from_rows(rows: Tensor, components: int, keep: int) -> EigenResult:
    if min(rows.shape) > DENSE_SIDE:
        stored = _Stored(rows)
        leading = krylov(stored, components=components, keep=keep, rank=RANK, tolerance=RESIDUAL, pairs=keep)
        if leading.converged:
            return replace(leading, vectors=stored.right(leading.vectors), cosine_bound=1.0)
    return _dense(rows, components, keep)


def _collected(operator: RowOperator, components: int, keep: int) -> EigenResult:
    """Store rows while they fit, then only the d x d sum of products."""
    _require_room(operator.dim, operator.expected)
    stored: list[Tensor] = []
    covariance: Tensor | None = None
    count = 0
    for block in operator.blocks():
        count += block.shape[0]
        if covariance is not None:
            covariance += block.double().T @ block.double()
            continue
        _require_room(operator.dim, count, block.element_size())
        stored.append(block)
        if count > operator.dim and count * operator.dim * block.element_size() > STORED:
            covariance = sum(
                (part.double().T @ part.double() for part in stored),
                start=torch.zeros(operator.dim, operator.dim, dtype=torch.float64),
            )
            stored = []
        elif count > MAX_SIDE and count <= operator.dim:
            raise _too_large(count)
    if covariance is not None:
        return _exact(*_leading(covariance / count, min(keep, operator.dim)), components)
    return _from_rows(torch.cat(stored), components, keep)


def _difference(operator: Difference, components: int, keep: int) -> EigenResult:
    """Both sets of rows stored; decomposed in their span, or iterated where that is large."""
    pairs, size = [], 0
    if operator.expected * (1 + operator.ratio) * operator.dim * 4 > STORED:
        raise _too_many(operator.dim, operator.expected)
    for pair in operator.pairs():
        pairs.append(pair)
        size += sum(part.numel() * part.element_size() for part in pair)
        if size > STORED:
            raise _too_many(operator.dim, sum(len(part) for part, _ in pairs))
    wanted, forbidden = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    count = len(wanted)
    if min(count + len(forbidden), operator.dim) > DENSE_SIDE:
        stored = MatrixDifference(wanted, forbidden, operator.price)
        leading = krylov(stored, components=components, keep=keep, rank=RANK, tolerance=RESIDUAL, pairs=keep)
        if leading.converged:
            return replace(leading, cosine_bound=1.0)
    weight = operator.price * count / max(1, len(forbidden))
    values, vectors = signed_leading(wanted, forbidden, weight, keep)
    return _exact(values / count, vectors, components)


def _too_many(dim: int, count: int) -> ConfigError:
    return ConfigError(
        f"the exact solver would store {count} rows of {dim} numbers, more than {STORED / 2**30:g} GiB; use "
        "solver='sketch'"
    )


def _require_room(dim: int, count: int, element: int = 4) -> None:
    """Refuse rows that neither fit as they are nor as a d x d sum of products, before they are collected."""
    if dim > MAX_SIDE and count * dim * element > STORED:
        raise _too_many(dim, count)


def _too_large(side: int) -> ConfigError:
    return ConfigError(
        f"the exact solver needs a {side} x {side} matrix (limit {MAX_SIDE}); use solver='sketch'"
    )


def gram(operator: Operator, *, components: int = 1, keep: int = 20) -> EigenResult:
    """Exact leading eigenpairs, for reference and for moderate sizes.

    One pass over the data, whose rows are stored (2 GiB at the most; then d x d sums of products
    take their place). An operator without rows is applied to the identity (d applications). Of a
    ``Difference`` both sets of rows are stored.

    Args:
        operator: Any operator; a ``RowOperator`` is cheaper.
        components: Vectors returned.
        keep: Eigenvalues returned at the most.

    Raises:
        ConfigError: Both n and d exceed ``MAX_SIDE``, or the rows of a difference take more than
            2 GiB; use ``sketch``.
    """
    keep = max(components, keep)
    if isinstance(operator, Difference):
        return _difference(operator, components, keep)
    if isinstance(operator, RowOperator):
        return _collected(operator, components, keep)
    if operator.dim > MAX_SIDE:
        raise _too_large(operator.dim)
    identity = torch.eye(operator.dim, dtype=torch.float64)
    return _exact(*_leading(operator.matmat(identity), min(keep, operator.dim)), components)
