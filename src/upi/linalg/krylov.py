"""Block Lanczos: leading eigenpairs of an operator that only applies itself to vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from upi.linalg.operator import Operator
from upi.linalg.result import EigenResult
from upi.seeding import generator

#: Columns applied at once at the most: a pass builds its graphs once for all of them.
WIDTH = 8


def _new_directions(fresh: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal basis of what ``fresh`` adds to ``basis``; empty where the space is exhausted."""
    scale = torch.linalg.vector_norm(fresh, dim=0).max()
    fresh = fresh - basis @ (basis.T @ fresh)
    left, singular, _ = torch.linalg.svd(fresh, full_matrices=False)
    left = left[:, singular > 1e-10 * scale]
    left = left - basis @ (basis.T @ left)
    block: Tensor = torch.linalg.qr(left)[0] if left.shape[1] else left
    return block


def krylov(
    operator: Operator,
    *,
    components: int = 1,
    keep: int = 20,
    rank: int = 64,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> EigenResult:
    """Rayleigh-Ritz on the block Krylov space of a random start, fully reorthogonalised.

    Stops when the first pair's relative residual ||A v - theta v|| / theta is below the
    tolerance (measured without another pass) or the space has ``rank`` columns; memory is
    2 * rank * d floats. Golub and Van Loan, Matrix Computations, section 10.3.

    Args:
        operator: Any operator.
        components: Vectors returned.
        keep: Eigenvalues returned at the most.
        rank: Columns of the space at the most.
        tolerance: Relative residual that counts as converged.
        seed: Fixes the start.
    """
    rank = min(max(rank, components), operator.dim)
    width = max(1, min(WIDTH, rank // 8))  # at least eight passes deep: depth finds, width averages
    start = torch.randn(operator.dim, width, generator=generator(seed, "krylov"), dtype=torch.float64)
    block, _ = torch.linalg.qr(start)
    basis, image = block, operator.matmat(block)
    while True:
        projected = basis.T @ image
        values, mixing = torch.linalg.eigh((projected + projected.T) / 2)
        values, mixing = values.flip(0), mixing.flip(1)
        vectors = basis @ mixing
        top = float(values[0])
        error = float((image @ mixing[:, 0] - top * vectors[:, 0]).norm())
        residual = error / top if top > 0 else float("inf")
        room = rank - basis.shape[1]
        if residual <= tolerance or room <= 0:
            break
        fresh = image[:, -block.shape[1] :][:, :room]
        block = _new_directions(fresh, basis)
        if block.shape[1] == 0:
            break
        basis, image = torch.cat([basis, block], 1), torch.cat([image, operator.matmat(block)], 1)
    return EigenResult(
        values[: max(components, keep)].clamp_min(0),
        vectors[:, :components].T.contiguous(),
        residual,
        basis.shape[1],
        converged=residual <= tolerance,
    )
