"""Dissimilarities against plain definitions; each is zero for equal maps and differentiable."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import Tensor

from upi import dissimilarity as dissimilarities
from upi.core.errors import ConfigError
from upi.core.types import Dissimilarity
from upi.dissimilarity import DISSIMILARITIES, TargetMap, structural_similarity


def _maps(seed: int, count: int = 3, side: int = 14) -> Tensor:
    maps = torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed)).double()
    return maps / maps.sum((1, 2), keepdim=True)


ALL: dict[str, Dissimilarity] = {**DISSIMILARITIES, "target": TargetMap(_maps(9, 1)[0])}


@pytest.mark.parametrize("name", ALL)
def test_contract(name: str) -> None:
    """(N,) values, zero for equal maps, right gradient, independent samples."""
    change, clean, moved = ALL[name], _maps(0), _maps(1)
    value = change(clean, moved)
    assert value.shape == (3,)
    torch.testing.assert_close(change(clean, clean), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(change(clean[1:2], moved[1:2]), value[1:2])
    point = moved.clone().requires_grad_()
    (slope,) = torch.autograd.grad(change(clean, point).sum(), point)
    direction = torch.randn(moved.shape, generator=torch.Generator().manual_seed(2)).double()
    h = 1e-7
    numeric = (change(clean, moved + h * direction) - change(clean, moved - h * direction)).sum() / (2 * h)
    assert float((slope * direction).sum()) == pytest.approx(float(numeric), rel=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_no_nan_gradient_where_the_maps_agree_or_vanish(name: str) -> None:
    for clean in (_maps(0), torch.zeros(2, 14, 14).double()):
        point = clean.clone().requires_grad_()
        (slope,) = torch.autograd.grad(ALL[name](clean, point).sum(), point)
        assert torch.isfinite(slope).all()


def test_values_follow_their_definitions() -> None:
    clean, moved = _maps(0), _maps(1)
    a, b = clean[0].flatten().numpy(), moved[0].flatten().numpy()
    expected = {
        "relative_l2": np.linalg.norm(a - b) / np.linalg.norm(a),
        "squared_l2": ((a - b) ** 2).sum(),
        "cosine": 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        "pearson": 1 - pearsonr(a, b).statistic,
    }
    for name, value in expected.items():
        assert float(DISSIMILARITIES[name](clean, moved)[0]) == pytest.approx(value, rel=1e-9)


def _ssim_by_loops(a: Tensor, b: Tensor) -> float:
    size, deviation = 11, 1.5
    axis = np.arange(size) - size // 2
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * deviation**2))
    window /= window.sum()
    x, y, values = a.numpy(), b.numpy(), []
    span = x.max() - min(0.0, x.min())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            p, q = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            structure = (2 * cov + c2) / (vp + vq + c2)
            values.append((2 * mp * mq + c1) / (mp**2 + mq**2 + c1) * structure)
    return float(np.mean(values))


def test_ssim_equals_a_loop_over_windows() -> None:
    clean, moved = _maps(0), _maps(1)
    for i in range(3):
        assert float(structural_similarity(clean, moved)[i]) == pytest.approx(
            _ssim_by_loops(clean[i], moved[i]), abs=1e-9
        )


def test_ssim_is_as_exact_whatever_precision_products_are_taken_in() -> None:
    clean, moved = _maps(0).float(), (_maps(0) + 1e-3 * _maps(1)).float()
    expected = structural_similarity(clean.double(), moved.double())
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = structural_similarity(clean, moved)
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_ssim_has_a_gradient_after_it_was_taken_in_inference_mode() -> None:
    maps = torch.rand(2, 1, 19, 23, dtype=torch.float64)  # a size that no other test has
    with torch.inference_mode():
        structural_similarity(maps[0], maps[1])
    point = maps[1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(structural_similarity(maps[0], point).sum(), point)
    assert bool(slope.any())


def test_top_k_is_the_share_of_top_mass_that_left() -> None:
    clean = torch.zeros(1, 10, 10)
    clean[0, 0, :5] = 0.2
    moved = clean.clone()
    moved[0, 0, 0], moved[0, 9, 9] = 0.0, 0.2
    assert float(dissimilarities.top_k(clean, moved)) == pytest.approx(0.2)


def test_mass_center_moves_by_pixels() -> None:
    clean, moved = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)
    clean[0, 1, 1], moved[0, 4, 5] = 2.0, -1.0
    assert float(dissimilarities.mass_center(clean, moved)) == pytest.approx(math.hypot(3, 4))


def test_target_map_is_one_at_the_target() -> None:
    target = _maps(9, 1)[0]
    values = TargetMap(target)(_maps(0, 1), target[None])
    assert float(values) == pytest.approx(1)
    with pytest.raises(ConfigError, match="target map must be finite"):
        TargetMap(torch.zeros(2, 3, 3))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown dissimilarity 'lpips'; known: cosine, mass_center"):
        dissimilarities.resolve("lpips")
