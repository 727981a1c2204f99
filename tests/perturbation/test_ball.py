"""Balls: projections, samples and steepest steps against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from upi.core.errors import ConfigError
from upi.perturbation.ball import Ball, parse_eps

BALLS = [Ball("l2", 0.7), Ball("linf", "8/255")]


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.norm)
def test_projection_is_the_nearest_point_and_leaves_inner_points_alone(ball: Ball) -> None:
    outside = torch.randn(4, 2, 3, 3, generator=_rng()).double()
    projected = ball.project(outside)
    assert ball.contains(projected)
    distance = (projected - outside).flatten(1).norm(dim=1)
    for seed in range(200):
        other = ball.sample((4, 2, 3, 3), _rng(seed)).double()
        assert ((other - outside).flatten(1).norm(dim=1) >= distance - 1e-9).all()
    inside = 0.5 * projected
    torch.testing.assert_close(ball.project(inside), inside)


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.norm)
def test_projection_in_the_box_is_the_nearest_point_of_both(ball: Ball) -> None:
    shape = (4, 2, 3, 3)
    x = torch.rand(shape, generator=_rng()).double().round(decimals=1)  # some pixels at their bounds
    x[0], x[1] = 0.0, x[1].round()
    outside = torch.randn(shape, generator=_rng(1)).double()
    projected = ball.project_in_box(outside, x)
    assert ball.contains(projected)
    assert (x + projected).min() >= 0
    assert (x + projected).max() <= 1
    distance = (projected - outside).flatten(1).norm(dim=1)
    for seed in range(200):
        other = (x + ball.sample(shape, _rng(seed)).double()).clamp(0, 1) - x
        near = projected + 0.05 * (other - projected)  # both are convex, so this is admissible too
        for point in (other, near):
            assert ((point - outside).flatten(1).norm(dim=1) >= distance - 1e-9).all()
    if ball.norm == "l2":  # what the box takes from some pixels goes to the others
        torch.testing.assert_close(ball.size(projected), torch.full((4,), 0.7).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(ball.project_in_box(0.5 * projected, x), 0.5 * projected)
    zero = torch.zeros(shape)
    assert torch.equal(ball.project_in_box(zero, x.float()), zero)


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.norm)
def test_steepest_step_has_the_largest_inner_product_of_the_unit_ball(ball: Ball) -> None:
    gradient = torch.randn(3, 1, 4, 4, generator=_rng()).double()
    best = (ball.steepest(gradient) * gradient).flatten(1).sum(1)
    unit = Ball(ball.norm, 1.0)
    assert unit.contains(ball.steepest(gradient))
    for seed in range(200):
        other = unit.sample((3, 1, 4, 4), _rng(seed)).double()
        assert ((other * gradient).flatten(1).sum(1) <= best + 1e-9).all()


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.norm)
def test_samples_fill_the_ball_uniformly(ball: Ball) -> None:
    """Uniform in d dimensions means that (size / eps)^d is uniform on [0, 1]."""
    draws = ball.sample((4000, 1, 2, 3), _rng()).double()
    share = (ball.size(draws) / ball.eps) ** 6
    assert ball.contains(draws)
    assert abs(float(share.mean()) - 0.5) < 4 / math.sqrt(12 * 4000)


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.norm)
def test_boundary_noise_has_exactly_the_radius(ball: Ball) -> None:
    size = ball.size(ball.boundary((5, 1, 4, 4), _rng()))
    torch.testing.assert_close(size, torch.full((5,), ball.eps))


def test_zero_gradient_and_zero_perturbation_stay_finite() -> None:
    zero = torch.zeros(2, 1, 3, 3)
    for ball in BALLS:
        assert torch.equal(ball.project(zero), zero)
        assert torch.equal(ball.steepest(zero), zero)


def test_eps_accepts_fractions() -> None:
    assert parse_eps("8/255") == pytest.approx(8 / 255)


@pytest.mark.parametrize("eps", [0, -1.0, math.inf, math.nan, "0", "nan", "1/0", "large", None])
def test_eps_must_be_finite_and_positive(eps: float | str) -> None:
    with pytest.raises(ConfigError, match="eps must be"):
        Ball("l2", eps)


def test_unknown_norm_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown norm 'l1'; known: l2, linf"):
        Ball("l1", 1.0)
