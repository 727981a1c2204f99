"""What an audit will cost: passes follow from the options, seconds from what was measured."""

from __future__ import annotations

import pytest

from upi.audit.cost import Cost, evaluation_passes, fit_passes, radius_passes
from upi.audit.settings import EFFORTS
from upi.core.rows import UPI_GRAD, UPI_PCA

QUICK = EFFORTS["quick"]


def test_a_dearer_step_makes_attacks_dearer_and_rows_not() -> None:
    assert fit_passes(UPI_GRAD, QUICK, 60, 1, 4.0) == pytest.approx(60 * 32 * 4.0)
    assert fit_passes(UPI_GRAD, QUICK, 60, 8, 4.0) == pytest.approx(8 * 60 * 32 * 4.0)
    slow, quick = (fit_passes(UPI_PCA, QUICK, 60, 1, step) for step in (4.0, 2.0))
    assert slow - quick == pytest.approx(12 * QUICK.n_fit * 2.0)
    rows = evaluation_passes(QUICK, 100, 1, 0.0)
    assert rows == 1800
    assert evaluation_passes(QUICK, 100, 1, 2.0) == pytest.approx(1800 + 100 * 8 * 2.0 * 0.9)
    assert radius_passes(2, 30, 33, QUICK, 1, 2.0) == pytest.approx(2 * (30 * 32 * 2 + 33 * 100 * 0.35))


def test_seconds_are_passes_and_the_rest() -> None:
    cost = Cost({"one": 100.0, "two": 300.0}, 0.5, 7.0)
    assert (cost.passes, cost.seconds) == (400.0, 207.0)
    assert str(cost) == "about 400 passes of the network, 3 min on this machine"
    assert str(Cost({"one": 10.0}, 0.5, 0.0)).endswith("5 s on this machine")
