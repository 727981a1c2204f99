"""Bootstrap intervals beside SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap

from upi.evaluation import intervals as module
from upi.evaluation.intervals import RESAMPLES, interval, intervals

RNG = np.random.default_rng(0)
COLUMNS = {
    "normal": RNG.normal(3.0, 1.0, 60),
    "skewed": RNG.exponential(size=60) ** 3,
    "shares": RNG.integers(0, 5, 60) / 4,
    "rare": np.eye(60)[7],
    "tiny": 1e-20 * RNG.normal(size=60),
    "far": 1e6 + RNG.normal(size=60),
}


def _by_scipy(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    ends = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(ends.low), float(ends.high)


@pytest.mark.parametrize("name", COLUMNS)
def test_intervals_are_scipys(name: str) -> None:
    values = COLUMNS[name]
    width = np.ptp(values) / len(values) ** 0.5
    for seed in (0, 1):
        found = interval(values, seed=seed)
        if name == "rare":  # equal means but for rounding: SciPy's rounding decides which are below
            assert found.ci95[0] == pytest.approx(0, abs=1e-9)
            continue
        np.testing.assert_allclose(found.ci95, _by_scipy(values, seed), rtol=0, atol=1e-3 * width)


def test_columns_together_are_columns_alone_also_where_values_are_missing() -> None:
    columns = {name: values.copy() for name, values in COLUMNS.items()}
    columns["normal"][[3, 8]], columns["skewed"][[3, 8]], columns["shares"][5] = np.nan, np.inf, np.nan
    columns |= {
        "none": np.full(60, np.nan),
        "equal": np.full(60, 2.0),
        "one": np.where(np.arange(60), np.nan, 4.0),
    }
    together = intervals(columns, seed=0)
    assert set(together) == set(columns)
    for name, values in columns.items():
        alone = interval(values[np.isfinite(values)], seed=0)
        assert together[name].n == alone.n
        np.testing.assert_allclose(together[name].ci95, alone.ci95, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(together[name].mean, alone.mean)
    assert together["equal"].ci95 == (2.0, 2.0)
    assert together["one"].ci95 == (4.0, 4.0)
    assert np.isnan(together["none"].ci95).all()


def test_resamples_in_pieces_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    values = COLUMNS["skewed"]
    whole = interval(values, seed=0)
    monkeypatch.setattr(module, "DRAWS", 7 * len(values))
    pieces = interval(values, seed=0)
    assert module._means(values[:, None], 0).shape == (RESAMPLES, 1)
    np.testing.assert_allclose(pieces.ci95, whole.ci95, rtol=1e-9)
