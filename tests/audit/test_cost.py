"""What an audit will cost: passes follow from the options, seconds from what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from upi.audit.cost import Cost, Sizes, evaluation_passes, fit_passes, radius_passes
from upi.core.rows import UPI_GRAD, UPI_PCA
from upi.experiments.fitting import Splits

SIZES = Sizes(fit=250, select=100, test=80, step=31.25)


def test_a_dearer_step_makes_attacks_dearer_and_rows_not() -> None:
    assert fit_passes(UPI_GRAD, SIZES, 60, 1, 4.0) == pytest.approx(60 * 31.25 * 4.0)
    assert fit_passes(UPI_GRAD, SIZES, 60, 8, 4.0) == pytest.approx(8 * 60 * 31.25 * 4.0)
    slow, quick = (fit_passes(UPI_PCA, SIZES, 60, 1, step) for step in (4.0, 2.0))
    assert slow - quick == pytest.approx(12 * 250 * 2.0)
    assert evaluation_passes(SIZES, 8, 1, 0.0) == 80 * 18
    assert evaluation_passes(SIZES, 8, 1, 2.0) == pytest.approx(80 * (18 + 8 * 2.0 * 0.9))
    assert radius_passes(2, 30, 33, SIZES, 1, 2.0) == pytest.approx(2 * (30 * 31.25 * 2 + 33 * 100 * 0.35))


def test_images_are_those_that_are_there() -> None:
    """Not those of the effort: an audit of few images is cheaper, and steps of large ones see fewer."""

    def cut(count: int, size: int) -> list[tuple[Tensor, Tensor]]:
        x, labels = torch.zeros(count, 1, 2, 2), torch.zeros(count, dtype=torch.long)
        return list(zip(torch.split(x, size), torch.split(labels, size), strict=True))

    splits = Splits(cut(24, 20), cut(12, 20), cut(40, 20))
    assert Sizes.of(splits) == Sizes(fit=24, select=12, test=40, step=12.0)
    assert Sizes.of(replace(splits, select=[])).select == 0


def test_seconds_are_passes_and_the_rest() -> None:
    cost = Cost({"one": 100.0, "two": 300.0}, 0.5, 7.0)
    assert (cost.passes, cost.seconds) == (400.0, 207.0)
    assert str(cost) == "about 400 passes of the network, 3 min on this machine"
    assert str(Cost({"one": 10.0}, 0.5, 0.0)).endswith("5 s on this machine")
