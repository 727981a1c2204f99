"""Block Lanczos: leading eigenpairs of an operator that only applies itself to vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from upi.core.seeding import generator
from upi.linalg.operator import Operator
from upi.linalg.result import EigenResult

#: Columns applied at once at the most: a pass builds its graphs once for all of them.
WIDTH = 8


class _Space:
    """An orthonormal basis with its image under A, and what A looks like in it."""

    def __init__(self, dim: int, rank: int) -> None:
        self.basis = torch.zeros(dim, rank, dtype=torch.float64)
        self.image = torch.zeros(dim, rank, dtype=torch.float64)
        self.inside = torch.zeros(rank, rank, dtype=torch.float64)
        self.size = 0

    def add(self, block: Tensor, image: Tensor) -> None:
        """Take in orthonormal columns (d, b) and A applied to them."""
        old, new = self.size, self.size + block.shape[1]
        self.basis[:, old:new], self.image[:, old:new] = block, image
        seen = self.basis[:, :new].T @ image
        self.inside[:new, old:new], self.inside[old:new, :new] = seen, seen.T
        self.size = new

    def ritz(self, count: int, pairs: int) -> tuple[Tensor, Tensor, float]:
        """All Ritz values, ``count`` vectors (d, count), the first pairs' largest relative residual."""
        size = self.size
        values, mixing = torch.linalg.eigh(self.inside[:size, :size])
        values, mixing = values.flip(0), mixing.flip(1)[:, :count]
        vectors = self.basis[:, :size] @ mixing
        errors = self.image[:, :size] @ mixing[:, :pairs] - vectors[:, :pairs] * values[:pairs]
        top = float(values[0])
        worst = float(torch.linalg.vector_norm(errors, dim=0).max())
        return values, vectors, worst / top if top > 0 else float("inf")

    def beyond(self, fresh: Tensor) -> Tensor:
        """Orthonormal basis of what ``fresh`` adds; empty where the space is exhausted."""
        basis = self.basis[:, : self.size]
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
    pairs: int = 1,
    seed: int = 0,
) -> EigenResult:
    """Rayleigh-Ritz on the block Krylov space of a random start, fully reorthogonalised.

    Stops when the residuals ||A v - theta v|| / theta_1 of the first pairs are below the
    tolerance (measured without another pass) or the space has ``rank`` columns; memory is
    2 * rank * d floats. Golub and Van Loan, Matrix Computations, section 10.3.

    Args:
        operator: Any operator.
        components: Vectors returned.
        keep: Eigenvalues returned at the most.
        rank: Columns of the space at the most.
        tolerance: Relative residual that counts as converged.
        pairs: Pairs that must converge.
        seed: Fixes the start.
    """
    rank = min(max(rank, components), operator.dim)
    width = max(1, min(WIDTH, rank // 8))  # at least eight passes deep: depth finds, width averages
    start = torch.randn(operator.dim, width, generator=generator(seed, "krylov"), dtype=torch.float64)
    block, _ = torch.linalg.qr(start)
    space = _Space(operator.dim, rank)
    while True:
        image = operator.matmat(block)
        space.add(block, image)
        room = rank - space.size
        block = space.beyond(image[:, :room]) if room else image[:, :0]
        last = block.shape[1] == 0
        # looking costs a decomposition, so a large space is looked at less often
        if last or space.size <= rank // 8 or space.size % (4 * width) == 0:
            values, vectors, residual = space.ritz(max(components, pairs), pairs)
            if last or residual <= tolerance:
                break
    return EigenResult(
        values[: max(components, keep)].clamp_min(0),
        vectors[:, :components].T.contiguous(),
        residual,
        space.size,
        converged=residual <= tolerance,
    )
