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


def gram(operator: Operator, *, components: int = 1, keep: int = 20) -> EigenResult:
    """Exact leading eigenpairs, for reference and for moderate sizes.

    One pass over the data. Rows are stored; the Gram matrix is n x n or d x d, whichever
    is smaller. An operator without rows is applied to the identity (d applications).

    Args:
        operator: Any operator; a ``RowOperator`` is cheaper.
        components: Vectors returned.
        keep: Eigenvalues returned at the most.

    Raises:
        ConfigError: Both n and d exceed ``MAX_SIDE``; use ``sketch``.
    """
    stored = torch.cat(list(operator.blocks())) if isinstance(operator, RowOperator) else None
    side = operator.dim if stored is None else min(stored.shape)
    if side > MAX_SIDE:
        raise ConfigError(
            f"the exact solver needs a {side} x {side} matrix (limit {MAX_SIDE}); use solver='sketch'"
        )
    count = min(max(components, keep), side)
    if stored is not None and stored.shape[0] <= stored.shape[1]:
        values, vectors = _from_samples(stored, count)
    elif stored is not None:
        g = stored.double()
        values, vectors = _leading(g.T @ g / g.shape[0], count)
    else:
        values, vectors = _from_covariance(operator, count)
    return EigenResult(values, vectors[:components], 0.0, 1, converged=True, cosine_bound=1.0)
