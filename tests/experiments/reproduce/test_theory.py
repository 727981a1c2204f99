"""The formal statements: the check itself can fail, and holds where it should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from upi.experiments.reproduce.theory import GRID, check, toy

pytestmark = pytest.mark.slow


def test_a_quadratic_is_tight() -> None:
    """h(s) = g s - tau s^2 / 2 meets the lower bound, with + the upper one."""
    g, tau = 0.7, 2.0
    for sign in (-1, 1):
        values = (g * GRID + sign * tau * GRID**2 / 2)[:, None]
        slopes = (g + sign * tau * GRID)[:, None]
        found = check(values, slopes)
        assert found["curvature"][0] == pytest.approx(tau)
        for t, ratio in found["points"]:
            assert ratio == pytest.approx(1 / (1 - sign * t), rel=1e-3)
        assert found["inside"] == 1.0


def test_slopes_that_do_not_belong_to_the_values_are_noticed() -> None:
    values = (0.1 * GRID + 4 * GRID**2)[:, None]
    assert check(values, np.full_like(values, 0.1) + 0.05 * GRID[:, None])["inside"] < 1.0


@pytest.mark.parametrize("seed", [0, 1])
def test_the_statements_hold_on_a_smooth_network(seed: int) -> None:
    found = toy(seed)
    assert found["inside"] >= 0.99  # tau is measured at 41 points, not everywhere
    assert found["largest_curvature"] <= found["stein_sharp"] <= found["stein_paper"]
    ratio = found["stein_paper"] / found["stein_sharp"]
    assert ratio == pytest.approx(math.sqrt(64 * math.pi / 2))


def test_the_sharp_form_of_steins_bound_is_attained() -> None:
    """f(u) = L |u_1| has curvature sqrt(2 / pi) L / sigma at 0 after smoothing: equality."""
    sigma, scale = 0.3, 2.0
    u = np.array([-0.01, 0.0, 0.01])
    z = np.linspace(-12, 12, 400_001) * sigma
    weight = np.exp(-(z**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)) * (z[1] - z[0])
    h = np.array([float((scale * np.abs(x + z) * weight).sum()) for x in u])
    curvature = (h[0] - 2 * h[1] + h[2]) / 1e-4
    assert curvature == pytest.approx(math.sqrt(2 / math.pi) * scale / sigma, rel=1e-3)
