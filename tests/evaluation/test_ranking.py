"""Orders, ranks and inversions against SciPy and against counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, rankdata
from torch import Tensor

from upi.evaluation.ranking import equal_pairs, inversions, mean_ranks, ordered, tau_b

SIZES = (1, 2, 5, 16, 17, 33, 100, 600)


def _rows(count: int, kind: str, dtype: torch.dtype) -> Tensor:
    rows = torch.randn(3, count, generator=torch.Generator().manual_seed(count), dtype=dtype)
    if kind == "coarse":
        rows = rows.round()
    if kind == "zeros":
        rows[:, ::2], rows[0] = 0.0, -0.0
    if kind == "far":
        rows[0, 0], rows[1] = torch.inf, -rows[1].abs() * 1e-40
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["fine", "coarse", "zeros", "far"])
@pytest.mark.parametrize("count", SIZES)
def test_orders_and_ranks_are_scipys(count: int, kind: str, dtype: torch.dtype) -> None:
    rows = _rows(count, kind, dtype)
    ascending, order = ordered(rows)
    stable = rows.sort(dim=1, stable=True)
    assert torch.equal(ascending, stable.values)
    assert torch.equal(order, stable.indices)
    np.testing.assert_array_equal(mean_ranks(ascending, order).numpy() + 1, rankdata(rows.numpy(), axis=1))


def _counted(row: Tensor) -> int:
    return int((row[:, None] > row[None, :]).triu(1).sum())


@pytest.mark.parametrize("values", [3, 50, 10**9])
@pytest.mark.parametrize("count", SIZES)
def test_inversions_and_equal_pairs_are_those_counted(count: int, values: int) -> None:
    rows = torch.randint(values, (4, count), generator=torch.Generator().manual_seed(count))
    assert inversions(rows).tolist() == [_counted(row) for row in rows]
    assert inversions(torch.arange(count).flip(0)[None]).tolist() == [count * (count - 1) // 2]
    equal = [int((row[:, None] == row[None, :]).triu(1).sum()) for row in rows]
    assert equal_pairs(rows.sort(dim=1).values).tolist() == equal


@pytest.mark.parametrize("values", [2, 7, 2**31 - 1])
def test_tau_b_is_scipys(values: int) -> None:
    first, second = torch.randint(values, (2, 5, 300), generator=torch.Generator().manual_seed(values % 97))
    second[0], second[1] = first[0], values - 1 - first[1]
    expected = [kendalltau(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    np.testing.assert_allclose(tau_b(first, second).numpy(), expected, atol=1e-12)
    assert bool(tau_b(first, torch.zeros_like(first)).isnan().all())
