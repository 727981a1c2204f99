"""Means with 95 % bootstrap intervals: bias-corrected and accelerated (BCa; Efron 1987).

Guards against intervals that cost more than what they are of: all figures of the same samples share their
resamples, each of which is one product of how often every sample was drawn with every figure, and the
acceleration of a mean is known without leaving one sample out after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

#: Resamples per interval; the end points then move by about 2 % of the width.
RESAMPLES = 2000
#: Draws that are held at once.
DRAWS = 2_000_000
#: Ends of the interval as quantiles of the distribution.
ENDS = (0.025, 0.975)


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


def _means(values: Values, seed: int) -> Values:
    """Means (RESAMPLES, K) of as many resamples, drawn with replacement, of n samples (n, K)."""
    rng, count, found = np.random.default_rng(seed), len(values), []
    step = max(1, DRAWS // count)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        drawn = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        found.append(times @ values / count)
    return np.concatenate(found)


def _ends(values: Values, seed: int) -> NDArray[np.float64]:
    """Ends (K, 2) of the intervals of the means of samples (n, K) that are not all equal."""
    from scipy.special import ndtr, ndtri  # imported here: it costs a second

    middle = values.mean(0)
    centred = values - middle
    around = _means(centred, seed)
    equal = np.abs(around) <= 1e-12 * np.abs(centred).max(0)  # the mean itself, but for rounding
    below = ((around < 0) & ~equal).mean(0) + equal.mean(0) / 2
    shift = ndtri(below)
    acceleration = (centred**3).sum(0) / (6 * (centred**2).sum(0) ** 1.5)
    ends = []
    for number in range(values.shape[1]):
        plain = ndtri(ENDS) + shift[number]
        chosen = ndtr(shift[number] + plain / (1 - acceleration[number] * plain))
        ends.append(np.quantile(around[:, number], chosen if np.isfinite(chosen).all() else ENDS))
    found: Values = middle[:, None] + np.array(ends)
    return found


def intervals(columns: Mapping[str, Values], *, seed: int) -> dict[str, Interval]:
    """Means of the finite values of columns (n,) of the same samples, with their bootstrap intervals.

    With fewer than two finite values, or all of them equal, the interval is the mean itself. Intervals
    are those of ``scipy.stats.bootstrap`` with the same seed.
    """
    found, alike = dict[str, Interval](), dict[bytes, list[str]]()
    for name, column in columns.items():
        finite = column[np.isfinite(column)].astype(np.float64)
        mean = float(finite.mean()) if finite.size else float("nan")
        found[name] = Interval(mean, (mean, mean), int(finite.size))
        if finite.size >= 2 and np.ptp(finite) > 1e-12 * np.abs(finite).max():
            alike.setdefault(np.isfinite(column).tobytes(), []).append(name)
    for names in alike.values():
        keep = np.isfinite(columns[names[0]])
        ends = _ends(np.stack([columns[name][keep] for name in names], 1).astype(np.float64), seed)
        for name, (low, high) in zip(names, ends, strict=True):
            found[name] = Interval(found[name].mean, (float(low), float(high)), found[name].n)
    return found


def interval(values: Values, *, seed: int) -> Interval:
    """``intervals`` of one column (n,)."""
    return intervals({"": values}, seed=seed)[""]
