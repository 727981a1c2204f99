"""Leading eigenpairs from the products of rows, against dense decompositions in float64."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from upi.linalg import MatrixRows, gram, span
from upi.linalg.difference import MatrixDifference
from upi.linalg.span import Weighted, from_products


def _rows(count: int, dim: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unit rows with a few directions that they share."""
    rng = torch.Generator().manual_seed(seed)
    shared = torch.randn(12, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixed = torch.randn(count, 12, generator=rng, dtype=torch.float64) * 0.7 ** torch.arange(12)
    rows = mixed @ shared + torch.randn(count, dim, generator=rng, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1).to(dtype)


def _dense(parts: list[Weighted]) -> tuple[Tensor, Tensor]:
    whole = sum((p.weight * p.rows.double().T @ p.rows.double() for p in parts), torch.zeros(()))
    values, vectors = torch.linalg.eigh(whole)
    return values.flip(0), vectors.flip(1).T


@pytest.mark.parametrize("counts", [(80, 40), (700, 300), (700, 0)])
@pytest.mark.parametrize("piece", [2**28, 2**19])
def test_pairs_are_those_of_the_whole_matrix(
    counts: tuple[int, int], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span, "PIECE", piece)
    monkeypatch.setattr(span, "BLOCK", 256)
    parts = [Weighted(_rows(counts[0], 1200, 1), 1 / counts[0])]
    if counts[1]:
        parts.append(Weighted(_rows(counts[1], 1200, 2), -0.5 / counts[1]))
    found = from_products(parts, components=3, keep=10, tolerance=1e-5)
    assert found is not None
    values, vectors = _dense(parts)
    torch.testing.assert_close(found.values, values[:10], rtol=0, atol=1e-9 if sum(counts) < 500 else 1e-7)
    assert found.vectors.shape == (3, 1200)
    cosines = (found.vectors * vectors[:3]).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-6)
    errors = sum(p.weight * (found.vectors @ p.rows.double().T) @ p.rows.double() for p in parts)
    worst = torch.linalg.vector_norm(errors - found.values[:3, None] * found.vectors, dim=1).max() / values[0]
    assert float(worst) <= max(2 * found.residual, 1e-6)


def test_a_few_rows_are_exact() -> None:
    rows = _rows(60, 400, 1, torch.float64)
    found = from_products([Weighted(rows, 1.0)], components=2, keep=20, tolerance=1e-5)
    assert found is not None
    torch.testing.assert_close(found.values, _dense([Weighted(rows, 1.0)])[0][:20], rtol=1e-11, atol=1e-12)


def test_what_does_not_pass_is_left_to_other_ways() -> None:
    rows = _rows(50, 400, 1)
    repeated = Weighted(rows[:3].repeat(20, 1), 1 / 60)
    assert from_products([repeated], components=1, keep=10, tolerance=1e-5) is None  # three values above 0
    assert from_products([Weighted(0 * rows, 1 / 50)], components=1, keep=5, tolerance=1e-5) is None
    assert from_products([Weighted(rows, 1 / 50)], components=1, keep=5, tolerance=0.0) is None
    values = gram(MatrixRows(repeated.rows), components=1, keep=10).values
    torch.testing.assert_close(values[:3], _dense([repeated])[0][:3], rtol=1e-6, atol=0)


def test_gram_goes_over_stored_rows_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("upi.linalg.gram")

    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("iterated on the rows")

    monkeypatch.setattr(module, "krylov", refuse)
    wanted, forbidden = _rows(600, 2000, 1), _rows(300, 2000, 2)
    assert gram(MatrixRows(wanted)).converged
    assert gram(MatrixDifference(wanted, forbidden, 0.5)).converged


def test_no_rows_have_no_values() -> None:
    assert gram(MatrixRows(torch.zeros(0, 10))).values.numel() in (0, 10)
