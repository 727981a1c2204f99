"""float32 stays float32 while a classifier runs, whatever PyTorch was told before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upi
from upi.network.hold import _ROUNDED


class Told(nn.Module):
    """A network that notes the precisions it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.seen: list[set[str]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append({kind.fp32_precision for kind in _ROUNDED})
        found: Tensor = self.linear(x.flatten(1))
        return found


@pytest.fixture
def medium() -> Iterator[list[Any]]:
    """PyTorch told to take shorter numbers, and what it says of that."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield [kind.fp32_precision for kind in _ROUNDED]
    torch.set_float32_matmul_precision(before)


def test_no_shorter_numbers_inside_and_the_callers_setting_afterwards(medium: list[str]) -> None:
    net = Told()
    model = upi.Classifier(net)
    with model.frozen():
        model(torch.rand(2, 1, 4, 4))
        model.predict(torch.rand(2, 1, 4, 4))
    assert net.seen == [{"ieee"}, {"ieee"}]
    assert [kind.fp32_precision for kind in _ROUNDED] == medium


def test_the_setting_stays_where_that_is_asked_for(medium: list[str]) -> None:
    net = Told()
    upi.Classifier(net, tf32=True)(torch.rand(2, 1, 4, 4))
    assert net.seen == [set(medium)]
    assert set(medium) != {"ieee"}


def test_an_error_leaves_the_callers_setting(medium: list[str]) -> None:
    with pytest.raises(upi.core.errors.ModelError), upi.Classifier(Told()).frozen():
        raise upi.core.errors.ModelError("")
    assert [kind.fp32_precision for kind in _ROUNDED] == medium
