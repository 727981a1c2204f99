"""What a solver returns: frozen, with the evidence of how good it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class EigenResult:
    """Leading eigenpairs of a positive semi-definite operator.

    ``cosine_bound`` is a proven lower bound on |cos| between the first vector and the
    true top eigenvector; 1 for exact solvers, 0 where nothing is proven.
    """

    values: Tensor  # (k,) float64, descending
    vectors: Tensor  # (k, d) float64, orthonormal rows
    residual: float  # ||A v - lambda v|| / lambda of the first pair; NaN where not measured
    iterations: int  # matrix applications or updates
    converged: bool
    cosine_bound: float = 0.0
    history: tuple[float, ...] = field(default=())  # Rayleigh quotients along the way
