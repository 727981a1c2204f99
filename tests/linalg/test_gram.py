"""The exact solver: what does not fit is refused before it is computed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest
import torch
from torch import Tensor

import upi
from tests.conftest import convolutional, images
from upi.core.errors import ConfigError
from upi.linalg import gram
from upi.linalg.difference import MatrixDifference
from upi.linalg.operator import MatrixRows, RowOperator
from upi.linalg.storage import RowStore


class Unasked(RowOperator):
    """Rows that must not be computed."""

    def __init__(self, dim: int, expected: int) -> None:
        self.dim, self.expected = dim, expected

    def blocks(self) -> Iterator[Tensor]:
        yield from self._computed()

    def _computed(self) -> Iterator[Tensor]:
        raise AssertionError("a row was computed")


def full(**_: object) -> FileIO:
    """A file on a full disk."""
    return Path("/dev/full").open("wb", buffering=0)


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with next to no room."""
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("upi.linalg.storage.shutil.disk_usage", lambda _: usage)


@pytest.mark.usefixtures("small_disk")
def test_rows_that_neither_memory_nor_disk_can_hold_are_refused_before_the_first() -> None:
    with pytest.raises(ConfigError, match=r"4000 rows of 786432 numbers, 11\.7 GiB, more than there is room"):
        gram(Unasked(786_432, 4000))


def test_rows_of_unknown_number_are_refused_when_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("upi.linalg.gram"), "STORED", 4000)
    monkeypatch.setattr("upi.linalg.storage.tempfile.TemporaryFile", full)
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


@pytest.mark.parametrize("shape", [(60, 900), (700, 900), (900, 700), (900, 30)])
def test_rows_in_a_file_give_what_rows_in_memory_give(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = (matrix * torch.arange(1, shape[1] + 1).double() ** -0.3).float()
    other = torch.randn(shape[0] // 2, shape[1], generator=torch.Generator().manual_seed(1))
    held = gram(MatrixRows(matrix, batch_size=64), components=3)
    priced = gram(MatrixDifference(matrix, other, 0.1, blocks=9), components=3)
    module = importlib.import_module("upi.linalg.gram")
    monkeypatch.setattr(module, "STORED", 20_000)
    monkeypatch.setattr(module, "PIECE", 100_000)
    spilled: list[bool] = []
    matrix_of = RowStore.matrix

    def watched(self: RowStore) -> Tensor:
        spilled.append(self.spilled)
        return matrix_of(self)

    monkeypatch.setattr(RowStore, "matrix", watched)
    for whole, found in (
        (held, gram(MatrixRows(matrix, batch_size=64), components=3)),
        (priced, gram(MatrixDifference(matrix, other, 0.1, blocks=9), components=3)),
    ):
        torch.testing.assert_close(found.values, whole.values, rtol=1e-5, atol=1e-9)
        cosines = (found.vectors.double() * whole.vectors.double()).sum(1).abs()
        assert cosines.min() > 1 - 1e-5
    assert spilled == [True, True, True]


@pytest.mark.usefixtures("small_disk")
def test_a_fit_says_so_before_its_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("upi.linalg.gram")
    monkeypatch.setattr(module, "STORED", 1000)
    attack = upi.UPIPCA(convolutional(torch.nn.ReLU), eps=0.5, solver="gram", draws=2, refinements=0)
    with pytest.raises(ConfigError, match="would store 24 rows of 64 numbers"):
        attack.fit([images(12)])
