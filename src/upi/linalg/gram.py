"""Exact eigenpairs in float64, by the smaller of the two Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from upi.errors import ConfigError
from upi.linalg.operator import Operator, RowOperator
from upi.linalg.result import EigenResult

#: Largest dense matrix side: 12,288 = 3 x 64 x 64, 1.2 GB in float64.
MAX_SIDE = 12_288


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:count].clamp_min(0), vectors.flip(1)[:, :count].T.contiguous()


def _from_covariance(operator: Operator, count: int) -> tuple[Tensor, Tensor]:
    return _leading(operator.matmat(torch.eye(operator.dim, dtype=torch.float64)), count)


def _from_samples(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    g = rows.double()
    values, left = _leading(g @ g.T / g.shape[0], count)
    right = left @ g
    norms = torch.linalg.vector_norm(right, dim=1, keepdim=True)
    return values, right / norms.clamp_min(torch.finfo(torch.float64).tiny)


def _from_rows(operator: RowOperator, count: int) -> tuple[Tensor, Tensor]:
    """Store rows while they are fewer than their width, then only the d x d sum of products."""
    stored: list[Tensor] = []
    covariance: Tensor | None = None
    rows = 0
    for block in operator.blocks():
        rows += block.shape[0]
        if covariance is not None:
            covariance += block.double().T @ block.double()
            continue
        stored.append(block)
        if rows > operator.dim and operator.dim <= MAX_SIDE:
            g = torch.cat(stored).double()
            covariance, stored = g.T @ g, []
        elif rows > MAX_SIDE:
            raise _too_large(rows)
    if covariance is not None:
        return _leading(covariance / rows, min(count, operator.dim))
    return _from_samples(torch.cat(stored), min(count, rows))


def _too_large(side: int) -> ConfigError:
    return ConfigError(
        f"the exact solver needs a {side} x {side} matrix (limit {MAX_SIDE}); use solver='sketch'"
    )


def gram(operator: Operator, *, components: int = 1, keep: int = 20) -> EigenResult:
    """Exact leading eigenpairs, for reference and for moderate sizes.

    One pass over the data. The Gram matrix is n x n or d x d, whichever is smaller; at most
    min(n, d) rows are stored. An operator without rows is applied to the identity (d
    applications).

    Args:
        operator: Any operator; a ``RowOperator`` is cheaper.
        components: Vectors returned.
        keep: Eigenvalues returned at the most.

    Raises:
        ConfigError: Both n and d exceed ``MAX_SIDE``; use ``sketch``.
    """
    count = max(components, keep)
    if isinstance(operator, RowOperator):
        values, vectors = _from_rows(operator, count)
    elif operator.dim > MAX_SIDE:
        raise _too_large(operator.dim)
    else:
        values, vectors = _from_covariance(operator, min(count, operator.dim))
    return EigenResult(values, vectors[:components], 0.0, 1, converged=True, cosine_bound=1.0)
