"""Exact leading eigenpairs of stored rows, or of a dense matrix where rows cannot be kept.

Rows that are fewer than their entries are decomposed by their products (``upi.linalg.span``). Other small
problems are decomposed densely in float64, larger ones iterated on the stored rows, from the side that is
shorter, until the residuals leave nothing to improve.
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
from upi.linalg.span import Weighted, from_products
from upi.linalg.storage import RowStore, require_disk

#: Largest dense matrix side: 12,288 = 3 x 64 x 64, 1.2 GB in float64.
MAX_SIDE = 12_288
#: Side up to which a dense decomposition is the quickest.
DENSE_SIDE = 512
#: Bytes of rows that are kept in memory; more go to a file that is mapped into it.
STORED = 2 * 2**30
#: Bytes of rows that are looked at together where they are in a file.
PIECE = 256 * 2**20
#: Rows whose products are decomposed; four matrices of this side take 1.2 GB in float64.
PRODUCTS = 6_144
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


def _columns(rows: Tensor) -> list[slice]:
    """The columns of large matrices in pieces, so that not all of them are turned into float64 at once."""
    width = max(1, PIECE // (8 * max(1, rows.shape[0])))
    return [slice(first, first + width) for first in range(0, rows.shape[1], width)]


def _dense(rows: Tensor, components: int, keep: int) -> EigenResult:
    count, dim = rows.shape
    if count > dim:
        g = rows.double()
        return _exact(*_leading(g.T @ g / count, keep), components)
    products = torch.zeros(count, count, dtype=torch.float64)
    for some in _columns(rows):
        part = rows[:, some].double()
        products += part @ part.T
    values, left = _leading(products / count, keep)
    right = torch.cat([left @ rows[:, some].double() for some in _columns(rows)], 1)
    norms = torch.linalg.vector_norm(right, dim=1, keepdim=True)
    return _exact(values, right / norms.clamp_min(torch.finfo(torch.float64).tiny), components)


def _from_rows(rows: Tensor, components: int, keep: int) -> EigenResult:
    if 0 < len(rows) <= min(rows.shape[1], PRODUCTS):
        whole = Weighted(rows, 1 / len(rows))
        found = from_products([whole], components=components, keep=keep, tolerance=RESIDUAL)
        if found is not None:
            return found
    if min(rows.shape) > DENSE_SIDE:
        stored = _Stored(rows)
        leading = krylov(stored, components=components, keep=keep, rank=RANK, tolerance=RESIDUAL, pairs=keep)
        if leading.converged:
            return replace(leading, vectors=stored.right(leading.vectors), cosine_bound=1.0)
    return _dense(rows, components, keep)


def _collected(operator: RowOperator, components: int, keep: int) -> EigenResult:
    """Rows stored, in memory or in a file; of tall matrices that do not fit the d x d sum of products."""
    _require_room(operator.dim, operator.expected)
    store = RowStore(STORED)
    covariance: Tensor | None = None
    for block in operator.blocks():
        if covariance is not None:
            store.count += block.shape[0]
            covariance += block.double().T @ block.double()
            continue
        store.add(block)
        if store.spilled and MAX_SIDE >= operator.dim < store.count:
            covariance = _products(store.matrix())
        elif store.count > MAX_SIDE and store.count <= operator.dim:
            raise _too_large(store.count)
    if covariance is not None:
        return _exact(*_leading(covariance / store.count, min(keep, operator.dim)), components)
    return _from_rows(store.matrix(), components, keep)


def _products(rows: Tensor) -> Tensor:
    """The sum of products R^T R in float64, piece by piece."""
    found = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for part in torch.split(rows, max(1, PIECE // (8 * rows.shape[1]))):
        found += part.double().T @ part.double()
    return found


def _difference(operator: Difference, components: int, keep: int) -> EigenResult:
    """Both sets of rows stored; decomposed in their span, or iterated where that is large."""
    whole = operator.expected * (1 + operator.ratio)
    if 4 * whole * operator.dim > STORED:
        require_disk(round(whole), operator.dim, round(4 * whole * operator.dim))
    share = STORED / (1 + operator.ratio)
    first, second = RowStore(round(share)), RowStore(round(STORED - share))
    for rows, others in operator.pairs():
        first.add(rows)
        second.add(others)
    wanted, forbidden = first.matrix(), second.matrix()
    count = len(wanted)
    if count and count + len(forbidden) <= min(operator.dim, PRODUCTS):
        sides = Weighted(wanted, 1 / count), Weighted(forbidden, -operator.price / max(1, len(forbidden)))
        found = from_products(sides, components=components, keep=keep, tolerance=RESIDUAL)
        if found is not None:
            return found
    if min(count + len(forbidden), operator.dim) > DENSE_SIDE:
        pieces = max(1, min(len(wanted), len(forbidden), (first.size + second.size) // PIECE))
        stored = MatrixDifference(wanted, forbidden, operator.price, blocks=pieces)
        leading = krylov(stored, components=components, keep=keep, rank=RANK, tolerance=RESIDUAL, pairs=keep)
        if leading.converged:
            return replace(leading, cosine_bound=1.0)
    weight = operator.price * count / max(1, len(forbidden))
    values, vectors = signed_leading(wanted, forbidden, weight, keep)
    return _exact(values / count, vectors, components)


def _require_room(dim: int, count: int, element: int = 4) -> None:
    """Refuse rows that fit neither in memory nor on the disk, nor as a d x d sum of products."""
    size = count * dim * element
    if size > STORED and (count <= dim or dim > MAX_SIDE):
        require_disk(count, dim, size)


def _too_large(side: int) -> ConfigError:
    return ConfigError(
        f"the exact solver needs a {side} x {side} matrix (limit {MAX_SIDE}); use solver='sketch'"
    )


def gram(operator: Operator, *, components: int = 1, keep: int = 20) -> EigenResult:
    """Exact leading eigenpairs, for reference and for moderate sizes.

    One pass over the data, whose rows are stored: in memory up to 2 GiB, beyond that in a temporary file
    that is mapped into it, or as d x d sums of products where rows are more than columns. An operator
    without rows is applied to the identity (d applications). Of a ``Difference`` both sets are stored.

    Args:
        operator: Any operator; a ``RowOperator`` is cheaper.
        components: Vectors returned.
        keep: Eigenvalues returned at the most.

    Raises:
        ConfigError: Both n and d exceed ``MAX_SIDE``, or the disk has no room for the rows; use ``sketch``.
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
