"""G^T G / n - price V^T V / m: every solver against a dense decomposition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.linalg.test_gram import full
from upi.core.errors import ConfigError
from upi.linalg import Difference, EigenResult, MatrixDifference, gram, power, sketch


def matrices(n: int, m: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows with a clear first direction each, which they share in part."""
    rng = torch.Generator().manual_seed(seed)
    wanted = torch.randn(n, d, generator=rng, dtype=torch.float64)
    forbidden = torch.randn(m, d, generator=rng, dtype=torch.float64)
    shared, own = torch.linalg.qr(torch.randn(d, 2, generator=rng, dtype=torch.float64))[0].T
    wanted += 3 * torch.randn(n, 1, generator=rng, dtype=torch.float64) * (shared + own) / 2**0.5
    forbidden += 4 * torch.randn(m, 1, generator=rng, dtype=torch.float64) * shared
    return wanted, forbidden


def dense(wanted: Tensor, forbidden: Tensor, price: float) -> np.ndarray:
    g, v = wanted.numpy(), forbidden.numpy()
    return g.T @ g / len(g) - price * v.T @ v / len(v)


SOLVERS: dict[str, tuple[Callable[[Difference], EigenResult], float]] = {
    "gram": (gram, 1 - 1e-9),
    "sketch": (sketch, 0.99),
    "power": (lambda operator: power(operator, steps=600), 0.98),
}


@pytest.mark.parametrize("price", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(300, 200, 40), (60, 40, 300)])
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_find_the_largest_eigenvalue(name: str, shape: tuple[int, int, int], price: float) -> None:
    solve, least = SOLVERS[name]
    wanted, forbidden = matrices(*shape)
    matrix = dense(wanted, forbidden, price)
    values, vectors = np.linalg.eigh(matrix)
    result = solve(MatrixDifference(wanted, forbidden, price, blocks=7))
    vector = result.vectors[0].numpy()
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert vector @ matrix @ vector >= least * values[-1]
    assert abs(vector @ vectors[:, -1]) >= result.cosine_bound - 1e-9


def test_large_problems_are_iterated_to_the_same_result() -> None:
    wanted, forbidden = matrices(700, 650, 600)
    result = gram(MatrixDifference(wanted, forbidden, 0.7), components=3)
    values, vectors = np.linalg.eigh(dense(wanted, forbidden, 0.7))
    assert result.iterations > 1  # not the dense way
    np.testing.assert_allclose(result.values[:3].numpy(), values[::-1][:3], rtol=1e-6)
    overlap = np.abs(result.vectors.numpy() @ vectors[:, ::-1][:, :3])
    np.testing.assert_allclose(overlap.diagonal(), 1, atol=1e-5)


def test_a_price_turns_away_from_what_is_forbidden() -> None:
    wanted, forbidden = matrices(400, 400, 50)
    loss = [
        float((forbidden @ gram(MatrixDifference(wanted, forbidden, price)).vectors[0]).norm())
        for price in (0.0, 0.3, 3.0)
    ]
    assert loss[0] > 1.2 * loss[1] > 2 * loss[2]


def test_a_certificate_is_a_bound_where_rows_are_dropped() -> None:
    wanted, forbidden = matrices(900, 900, 300)
    wanted, forbidden = (rows * torch.linspace(1, 0, 300) ** 6 for rows in (wanted, forbidden))
    result = sketch(MatrixDifference(wanted, forbidden, 0.2), rank=64)
    truth = np.linalg.eigh(dense(wanted, forbidden, 0.2))[1][:, -1]
    assert 0 <= result.cosine_bound <= abs(result.vectors[0].numpy() @ truth)
    assert result.cosine_bound > 0.1  # not vacuous here


def test_the_exact_solver_refuses_rows_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys.modules["upi.linalg.gram"], "STORED", 1000)
    monkeypatch.setattr("upi.linalg.storage.tempfile.TemporaryFile", full)
    with pytest.raises(ConfigError, match="use solver='sketch'"):
        gram(MatrixDifference(*matrices(50, 50, 20), 1.0, blocks=5))
