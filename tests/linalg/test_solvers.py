"""One contract checker for all solvers, against NumPy's singular value decomposition."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from upi.core.errors import ConfigError
from upi.linalg import EigenResult, FrequentDirections, MatrixRows, Operator, Term, gram, power, sketch


def planted(n: int, d: int, *, ratio: float, seed: int = 0) -> Tensor:
    """A matrix with singular values 1, ratio, ratio^1.5, ... and random singular vectors."""
    rng = torch.Generator().manual_seed(seed)
    rank = min(n, d)
    left, _ = torch.linalg.qr(torch.randn(n, rank, generator=rng, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(d, rank, generator=rng, dtype=torch.float64))
    values = ratio ** torch.linspace(0, 6, rank, dtype=torch.float64).sqrt().mul(2)
    values[0], values[1:] = 1.0, values[1:].clamp_max(ratio)
    return left * values @ right.T


class Dense(Operator):
    """An operator without rows: a mean of symmetric matrices."""

    def __init__(self, parts: list[Tensor]) -> None:
        self.parts, self.dim = parts, parts[0].shape[0]

    def terms(self) -> Iterator[Term]:
        for part in self.parts:
            yield Term(lambda v, m=part: m @ v, 1)  # type: ignore[misc]


SOLVERS: dict[str, tuple[Callable[[Operator], EigenResult], float]] = {
    "gram": (gram, 1 - 1e-12),
    "sketch": (sketch, 0.995),
    "power": (lambda operator: power(operator, steps=400), 0.995),
}


@pytest.mark.parametrize("shape", [(300, 40), (40, 300)])
@pytest.mark.parametrize("name", SOLVERS)
def test_contract(name: str, shape: tuple[int, int]) -> None:
    solve, least = SOLVERS[name]
    matrix = planted(*shape, ratio=0.8)
    result = solve(MatrixRows(matrix, batch_size=32))
    truth = np.linalg.svd(matrix.numpy())[2][0]
    vector = result.vectors[0].numpy()
    assert abs(vector @ truth) >= max(least, result.cosine_bound - 1e-9)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert float(result.values[0]) == pytest.approx(1 / shape[0], rel=0.02)
    assert result.converged


@pytest.mark.parametrize("name", SOLVERS)
def test_operators_without_rows(name: str) -> None:
    matrix = planted(200, 30, ratio=0.7)
    parts = [block.T @ block for block in torch.split(matrix, 50)]
    result = SOLVERS[name][0](Dense(parts))
    truth = np.linalg.svd(matrix.numpy())[2][0]
    assert abs(result.vectors[0].numpy() @ truth) >= 0.995


@pytest.mark.parametrize("shape", [(60, 25), (25, 60), (400, 25), (26, 25), (25, 25)])
def test_gram_gives_the_exact_spectrum_and_orthonormal_vectors(shape: tuple[int, int]) -> None:
    matrix = planted(*shape, ratio=0.9)
    result = gram(MatrixRows(matrix), components=5)
    singular = np.linalg.svd(matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(result.values.numpy() * shape[0], singular[:20] ** 2, atol=1e-12)
    torch.testing.assert_close(result.vectors @ result.vectors.T, torch.eye(5, dtype=torch.float64))


def test_gram_refuses_matrices_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys.modules["upi.linalg.gram"], "MAX_SIDE", 10)
    with pytest.raises(ConfigError, match="use solver='sketch'"):
        gram(MatrixRows(torch.randn(20, 30)))


@pytest.mark.parametrize("rank", [4, 8, 16])
def test_frequent_directions_keep_their_promise(rank: int) -> None:
    """0 <= ||G v||^2 - ||B v||^2 <= shed for every direction, with 2 * rank rows."""
    matrix = torch.randn(500, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = FrequentDirections(30, rank)
    for block in torch.split(matrix, 37):
        directions.update(block)
        assert directions.buffer.shape == (2 * rank, 30)
    kept = directions.buffer[: directions.filled]
    gap = torch.linalg.eigvalsh(matrix.T @ matrix - kept.T @ kept)
    assert float(gap.min()) >= -1e-9
    assert 0 < float(gap.max()) <= directions.shed + 1e-9
    assert directions.shed <= float(matrix.square().sum()) / (rank - directions.spared + 1)


def test_the_sketch_is_exact_and_says_so_when_everything_fits() -> None:
    matrix = planted(50, 30, ratio=0.99)
    result = sketch(MatrixRows(matrix), rank=64)
    assert result.cosine_bound == 1
    torch.testing.assert_close(result.values, gram(MatrixRows(matrix)).values)


@pytest.mark.parametrize("seed", range(10))
def test_the_sketch_s_certificate_is_never_too_good(seed: int) -> None:
    matrix = planted(400, 60, ratio=0.85, seed=seed)
    result = sketch(MatrixRows(matrix, batch_size=16), rank=12)
    truth = np.linalg.svd(matrix.numpy())[2][0]
    assert abs(result.vectors[0].numpy() @ truth) >= result.cosine_bound


def test_unequal_batches_are_weighted_by_their_counts() -> None:
    matrix = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector = torch.ones(6, dtype=torch.float64)
    expected = matrix.T @ (matrix @ vector) / 50
    for size in (50, 49, 7):
        torch.testing.assert_close(MatrixRows(matrix, batch_size=size).matvec(vector), expected)


def test_power_reports_that_it_has_not_converged() -> None:
    operator = MatrixRows(planted(100, 50, ratio=0.8))
    early, late = power(operator, steps=2), power(operator, steps=400)
    assert not early.converged
    assert early.residual > 0.05 > late.residual
    assert len(early.history) == 2


@pytest.mark.parametrize("shape", [(900, 700), (600, 1300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gram_of_large_matrices_is_exact_as_well(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Iterated, not decomposed: 20 values and 5 vectors against NumPy, with a flat spectrum."""
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = (matrix * torch.arange(1, shape[1] + 1).double() ** -0.2).to(dtype)
    result = gram(MatrixRows(matrix), components=5)
    _, singular, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    assert result.iterations > 1  # the iterated path was taken
    np.testing.assert_allclose(result.values.numpy() * shape[0], singular[:20] ** 2, rtol=1e-6)
    cosines = np.abs((result.vectors.numpy() * right[:5]).sum(1))
    assert cosines.min() > 1 - 1e-6


def test_gram_of_rows_that_do_not_fit_keeps_their_products(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys.modules["upi.linalg.gram"], "STORED", 100 * 30 * 8)
    matrix = planted(400, 30, ratio=0.9)
    result = gram(MatrixRows(matrix, batch_size=64))
    singular = np.linalg.svd(matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(result.values.numpy() * 400, singular[:20] ** 2, atol=1e-12)
