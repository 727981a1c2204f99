"""Bootstrap intervals of means."""

from __future__ import annotations

import numpy as np
import pytest

from upi.evaluation import intervals
from upi.evaluation.intervals import interval


def test_many_samples_take_percentiles_that_agree_with_bca_on_a_skewed_mean() -> None:
    values = np.random.default_rng(0).exponential(size=intervals.MANY)
    many = interval(values, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "MANY", len(values) + 1)
        exact = interval(values, seed=0)
    width = exact.ci95[1] - exact.ci95[0]
    assert many.ci95 != exact.ci95
    np.testing.assert_allclose(many.ci95, exact.ci95, atol=0.05 * width)
