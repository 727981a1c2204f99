"""Aggregated gradients: with one part UPI-Grad itself, with more the sum of directions."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import upi
from tests.conftest import Batches, convolutional, images
from upi.attacks.aggregated_grad import STRIDE, AggregatedGrad, AggregatedObjective
from upi.attacks.support.objective import MapChange
from upi.attacks.support.universal import MinibatchObjective
from upi.core.errors import ConfigError
from upi.data.batches import endless_batches


def test_one_part_steps_as_upi_grad_does(relu_net: nn.Module, loader: Batches) -> None:
    """Up to the length of the gradient, which the ascent divides by."""
    options = {"eps": 0.8, "steps": 6, "prediction_price": 0.5, "clip": True}
    whole = upi.UPIGrad(relu_net, **options).fit(loader)  # type: ignore[arg-type]
    found = AggregatedGrad(relu_net, parts=1, **options).fit(loader)  # type: ignore[arg-type]
    torch.testing.assert_close(found.delta, whole.delta, rtol=1e-4, atol=1e-6)


def test_a_step_sums_the_directions_of_the_parts_along_their_way() -> None:
    model, x = upi.Classifier(convolutional(nn.Softplus).double()), images(8).double()
    objective = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2)
    plain, ball = model.surrogate(None), upi.Ball("l2", 0.5)

    def stream(size: int) -> MinibatchObjective:
        batches = endless_batches(model, partial(objective.clean, plain), list(torch.split(x, size)))
        return MinibatchObjective(plain, objective, batches, 0.0, 0)

    delta = ball.sample((1, 1, 8, 8), torch.Generator().manual_seed(1)).double()
    found = AggregatedObjective(stream(8), ball, 2)(delta, 3)
    halves = stream(4)
    first = halves(delta, 0).gradient
    moved = ball.project(delta + STRIDE * 0.5 * first / first.norm())
    second = halves(moved, 1).gradient
    torch.testing.assert_close(found.gradient, first / first.norm() + second / second.norm())


def test_it_costs_what_upi_grad_costs(relu_net: nn.Module, loader: Batches) -> None:
    seen: list[int] = []
    relu_net.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    spent = []
    for attack in (upi.UPIGrad, AggregatedGrad):
        seen.clear()
        attack(relu_net, eps=1.0, steps=9).fit(loader)
        spent.append(sum(seen))
    assert spent[0] == spent[1]


def test_parts_out_of_range_are_refused(relu_net: nn.Module) -> None:
    with pytest.raises(ConfigError, match="parts must be at least 1, got 0"):
        AggregatedGrad(relu_net, eps=1.0, parts=0)
