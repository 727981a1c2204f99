"""What one set of rows wants, less what another set forbids: A = G^T G / n - price * V^T V / m.

A is symmetric but no longer positive semi-definite: its leading eigenvector is the one of the
*largest* eigenvalue, not of the largest in size, and a power iteration has to be damped. Guards
against solvers that forget this and return the direction that is forbidden most.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from upi.linalg.operator import Operator, Term


class Difference(Operator):
    """G^T G / n - price * V^T V / m for two matrices whose rows arrive together.

    Attributes:
        price: Weight of the second term, at least 0.
    """

    price: float

    @abstractmethod
    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass: blocks (b, d) of G with blocks (c, d) of V; c may differ from b, or be 0.

        The ratio of all rows of V to all rows of G need not be that of one block.
        """

    @property
    @abstractmethod
    def ratio(self) -> float:
        """Rows of V per row of G in a whole pass, n and m being known only at its end."""

    def terms(self) -> Iterator[Term]:
        for wanted, forbidden in self.pairs():
            yield Term(_product(wanted.double(), forbidden.double(), self.price / self.ratio), len(wanted))


def _product(wanted: Tensor, forbidden: Tensor, weight: float) -> Callable[[Tensor], Tensor]:
    def matmat(block: Tensor) -> Tensor:
        return wanted.T @ (wanted @ block) - weight * (forbidden.T @ (forbidden @ block))

    return matmat


class MatrixDifference(Difference):
    """The difference of two stored matrices (n, d) and (m, d), handed out in ``blocks`` pieces."""

    def __init__(self, wanted: Tensor, forbidden: Tensor, price: float, *, blocks: int = 1) -> None:
        self.wanted, self.forbidden, self.price, self.count = wanted, forbidden, price, blocks
        self.dim = wanted.shape[1]

    @property
    def ratio(self) -> float:
        return len(self.forbidden) / len(self.wanted)

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(
            torch.tensor_split(self.wanted, self.count),
            torch.tensor_split(self.forbidden, self.count),
            strict=True,
        )


def signed_leading(wanted: Tensor, forbidden: Tensor, weight: float, count: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues of W^T W - weight * F^T F, and their vectors as rows, in float64.

    Exact: the problem is solved in an orthonormal basis of all rows, (n + m) x (n + m) at the most.

    Args:
        wanted, forbidden: W (n, d) and F (m, d).
        weight: At least 0.
        count: Pairs wanted; fewer where the rows span fewer dimensions.
    """
    rows = torch.cat([wanted.double(), forbidden.double()])
    signs = torch.cat([rows.new_ones(len(wanted)), rows.new_full((len(forbidden),), -weight)])
    basis, mixing = torch.linalg.qr(rows.T)  # (d, r), (r, n + m)
    values, inside = torch.linalg.eigh((mixing * signs) @ mixing.T)
    return values.flip(0)[:count], (basis @ inside.flip(1)[:, :count]).T.contiguous()
