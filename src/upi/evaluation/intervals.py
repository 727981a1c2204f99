"""Means with 95 % bootstrap intervals (by SciPy)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Resamples per interval; the end points then move by about 2 % of the width.
RESAMPLES = 2000
#: Samples from which the plain percentile interval is taken: BCa's corrections have vanished by then, and
#: its jackknife takes time as the square of the samples (13 s for 48,000, for each of 200 figures).
MANY = 5000


@dataclass(frozen=True)
class Interval:
    """A mean over samples and its 95 % interval; NaN where no sample counts."""

    mean: float
    ci95: tuple[float, float]
    n: int  # samples that count

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; NaN becomes null."""
        low, high = (float(end) if np.isfinite(end) else None for end in self.ci95)
        return {"mean": self.mean if np.isfinite(self.mean) else None, "ci95": [low, high], "n": self.n}


def interval(values: NDArray[np.float64], *, seed: int) -> Interval:
    """Mean of the finite ``values`` (n,) with its bootstrap interval: BCa, from ``MANY`` on percentiles.

    With fewer than two finite values, or all of them equal, the interval is the mean itself.
    """
    from scipy.stats import bootstrap  # imported here: it costs a second

    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size == 0:
        return Interval(float("nan"), (float("nan"), float("nan")), 0)
    mean = float(finite.mean())
    if finite.size < 2 or np.ptp(finite) < 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, (mean, mean), int(finite.size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate resamples are answered by the fallback below
        result = bootstrap(
            (finite,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=max(1, 2_000_000 // finite.size),
            method="BCa" if finite.size < MANY else "percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = (float(end) for end in result.confidence_interval)
    if np.isnan(low) or np.isnan(high):
        low, high = (float(q) for q in np.quantile(result.bootstrap_distribution, (0.025, 0.975)))
    return Interval(mean, (low, high), int(finite.size))
