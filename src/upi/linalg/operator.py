"""Positive semi-definite operators that are a mean of minibatch terms.

An operator is a noun with ``matvec``; a solver is a function over any operator. This
package knows nothing of networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Term:
    """One minibatch's part of an operator."""

    matmat: Callable[[Tensor], Tensor]  # (d, k) -> (d, k), the *sum* over the minibatch
    count: int  # samples in the minibatch


class Operator(ABC):
    """A = (1/n) sum over minibatches of their terms; symmetric, positive semi-definite."""

    dim: int
    expected: int = 0  # rows that a pass will have, 0 where that is not known before it

    @abstractmethod
    def terms(self) -> Iterator[Term]:
        """One pass over the minibatches, always the same terms in the same order."""

    def matmat(self, block: Tensor) -> Tensor:
        """A applied to (d, k) float64; one pass over the data."""
        total, count = torch.zeros_like(block), 0
        for term in self.terms():
            total += term.matmat(block)
            count += term.count
        return total / count

    def matvec(self, vector: Tensor) -> Tensor:
        """A applied to (d,) float64."""
        return self.matmat(vector[:, None])[:, 0]


def endless(operator: Operator) -> Iterator[Term]:
    """Its terms, pass after pass."""
    while True:
        yield from operator.terms()


def follow(operator: Operator, updates: int = 0) -> None:
    """Go over an operator as its solver does elsewhere: some updates, if there are any, and a whole pass."""
    for _ in zip(range(updates), endless(operator), strict=False):
        pass
    for _ in operator.terms():
        pass


class RowOperator(Operator):
    """A = G^T G / n for a matrix G that arrives as blocks of rows."""

    @abstractmethod
    def blocks(self) -> Iterator[Tensor]:
        """One pass over the rows of G, as (b, d) blocks."""

    def terms(self) -> Iterator[Term]:
        for rows in self.blocks():
            block = rows.double()
            yield Term(lambda v, g=block: g.T @ (g @ v), block.shape[0])  # type: ignore[misc]


class MatrixRows(RowOperator):
    """The rows of a stored matrix (n, d), handed out ``batch_size`` at a time."""

    def __init__(self, matrix: Tensor, *, batch_size: int = 256) -> None:
        self.matrix = matrix
        self.batch_size = batch_size
        self.dim = matrix.shape[1]

    def blocks(self) -> Iterator[Tensor]:
        yield from torch.split(self.matrix, self.batch_size)
