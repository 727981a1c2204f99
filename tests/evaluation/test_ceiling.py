"""The ceiling is never exceeded, is reached by the worst function, and its sampling error is right."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import images
from upi.core.errors import ConfigError
from upi.evaluation.ceiling import ceiling, largest_change, sampling_error, total_variation
from upi.network.classifier import Classifier
from upi.perturbation.ball import Ball
from upi.saliency import SmoothGrad
from upi.saliency.smoothgrad import unit_smoothgrad


def means(eps: float, sigma: float, draws: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Means of the worst maps: one unit map left of the middle between x and x + eps, another right of it."""
    z = sigma * torch.randn(draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    right = [(z + shift > eps / 2).double().mean() for shift in (0.0, eps)]
    return torch.stack([1 - right[0], right[0]]), torch.stack([1 - right[1], right[1]])


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 3.0])
def test_the_worst_function_reaches_it(ratio: float) -> None:
    before, after = means(ratio * 0.5, 0.5, 400_000)
    assert float((after - before).norm()) == pytest.approx(largest_change(ratio * 0.5, 0.5), abs=5e-3)


def test_total_variation_by_integration() -> None:
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    here, there = (torch.exp(-((grid - shift) ** 2) / 2) / sqrt(2 * torch.pi) for shift in (0.0, 1.3))
    half = torch.trapezoid((here - there).abs(), grid) / 2
    assert total_variation(1.3 * 0.2, 0.2) == pytest.approx(float(half), abs=1e-8)


def test_signed_maps_need_the_larger_constant() -> None:
    assert largest_change(0.3, 0.5, signed=True) == pytest.approx(sqrt(2) * largest_change(0.3, 0.5))
    with pytest.raises(ConfigError, match="noise"):
        largest_change(0.3, 0.0)


def test_means_are_within_the_stated_error() -> None:
    """Of the worst case for it, two unit maps by the toss of a coin, in 2,000 samples."""
    draws, alpha = 64, 0.05
    heads = torch.rand(2000, draws, generator=torch.Generator().manual_seed(0)).lt(0.5).double().mean(1)
    distance = torch.stack([heads - 0.5, 0.5 - heads]).norm(dim=0)
    assert float((distance > sampling_error(draws, alpha)).double().mean()) <= alpha


class Little(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.4])
def test_no_perturbation_of_a_network_exceeds_it(eps: float) -> None:
    ball, x = Ball("l2", eps), images(6)
    push = ball.boundary(tuple(x.shape), torch.Generator().manual_seed(1))

    def worst(batch: Tensor, target: Tensor) -> Tensor:
        return (batch + push[: len(batch)].to(batch)).clamp(0, 1)

    found = ceiling(Classifier(Little()), unit_smoothgrad(), worst, [x], ball, draws=2048, count=6)
    assert found.found.n == found.ceiling.n == 6
    assert 0 < found.found.mean < found.ceiling.mean
    assert found.ceiling.mean >= largest_change(eps, 0.5)  # clean maps are no longer than 1


def test_it_is_vacuous_where_it_says_nothing() -> None:
    x, ball = images(3), Ball("l2", 8.0)
    found = ceiling(Classifier(Little()), unit_smoothgrad(), lambda x, t: x, [x], ball, draws=256, count=3)
    assert found.vacuous == 1.0
    assert found.ceiling.mean > found.trivial
    assert 0 < found.informative < 8.0
    assert found.found.mean == 0.0


def test_maps_without_a_bound_have_none() -> None:
    x, ball = images(2), Ball("l2", 0.1)
    for explained in (SmoothGrad(), SmoothGrad(unit=True), SmoothGrad(unit=True, normalize="none", noise=0)):
        with pytest.raises(ConfigError, match="unit=True"):
            ceiling(Classifier(Little()), explained, lambda x, t: x, [x], ball, draws=8)


class Coarse(nn.Module):
    """Two slopes; which of them an image has is decided by a cut through one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        z = torch.where(flat[:, 0] > 0.5, flat[:, 1], flat[:, 2])
        return torch.stack([-z, z], 1)


def test_what_was_found_is_the_change_of_the_expected_map() -> None:
    eps, sigma, x = 0.05, 0.5, images(2).clamp(0.1, 0.9)
    x[:, 0, 0, 0] = 0.5

    def push(batch: Tensor, target: Tensor) -> Tensor:
        moved = batch.clone()
        moved[:, 0, 0, 0] += eps
        return moved

    explained, ball = unit_smoothgrad(noise=sigma), Ball("l2", eps)
    found = ceiling(Classifier(Coarse()), explained, push, [x], ball, draws=16384, count=2)
    # Of the mass on one side of the cut, Phi(eps / sigma) - 1/2 goes over to the other; the clean map is
    # (1/2, 1/2), of length 1 / sqrt(2).
    right = 2 * (NormalDist().cdf(eps / sigma) - 0.5)
    assert found.found.mean == pytest.approx(right, rel=0.1)


def test_an_odd_number_of_draws_is_refused() -> None:
    with pytest.raises(ConfigError, match="even number"):
        ceiling(
            Classifier(Little()), unit_smoothgrad(), lambda x, t: x, [images(2)], Ball("l2", 0.1), draws=7
        )
