"""The exact solver: what does not fit is refused before it is computed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import upi
from tests.conftest import convolutional, images
from upi.core.errors import ConfigError
from upi.linalg import gram
from upi.linalg.operator import RowOperator


class Unasked(RowOperator):
    """Rows that must not be computed."""

    def __init__(self, dim: int, expected: int) -> None:
        self.dim, self.expected = dim, expected

    def blocks(self) -> Iterator[Tensor]:
        yield from self._computed()

    def _computed(self) -> Iterator[Tensor]:
        raise AssertionError("a row was computed")


def test_rows_that_would_not_fit_are_refused_before_the_first() -> None:
    with pytest.raises(
        ConfigError, match="4000 rows of 786432 numbers, more than 2 GiB; use solver='sketch'"
    ):
        gram(Unasked(786_432, 4000))


def test_rows_of_unknown_number_are_refused_when_they_no_longer_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("upi.linalg.gram"), "STORED", 4000)
    seen: list[int] = []

    class Many(RowOperator):
        dim = 20_000

        def blocks(self) -> Iterator[Tensor]:
            for number in range(100):
                seen.append(number)
                yield torch.rand(1, self.dim)

    with pytest.raises(ConfigError, match="use solver='sketch'"):
        gram(Many())
    assert seen == [0]


def test_a_fit_says_so_before_its_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("upi.linalg.gram")
    monkeypatch.setattr(module, "STORED", 1000)
    monkeypatch.setattr(module, "MAX_SIDE", 10)
    attack = upi.UPIPCA(convolutional(torch.nn.ReLU), eps=0.5, solver="gram", draws=2, refinements=0)
    with pytest.raises(ConfigError, match="would store 24 rows of 64 numbers"):
        attack.fit([images(12)])
