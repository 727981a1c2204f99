"""Metrics of pairs of maps, beside what others compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

import upi
from tests.conftest import Batches
from upi.evaluation import metrics
from upi.evaluation.controls import mean_columns, noise
from upi.evaluation.metrics import MAP_METRICS, Shown
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import in_box

CLEAN, MOVED = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_kendall_is_scipys_also_with_ties() -> None:
    coarse = (4 * CLEAN).round()
    for a, b in ((CLEAN, MOVED), (coarse, MOVED), (CLEAN, CLEAN)):
        pairs = zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)
        expected = [kendalltau(x, y).statistic for x, y in pairs]
        np.testing.assert_allclose(metrics.kendall(Shown(a), Shown(b)).numpy(), expected, atol=1e-12)


def test_kendall_of_large_maps_is_an_estimate_of_the_whole() -> None:
    a = torch.rand(1, 90, 90, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = a + 0.3 * torch.rand(1, 90, 90, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = kendalltau(a.flatten().numpy(), b.flatten().numpy()).statistic
    assert float(metrics.kendall(Shown(a), Shown(b))) == pytest.approx(whole, abs=0.02)
    assert torch.equal(metrics.kendall(Shown(a), Shown(b)), metrics.kendall(Shown(a), Shown(b)))


def test_top_100_is_fixed_and_counts_pixels() -> None:
    expected = []
    for a, b in zip(CLEAN, MOVED, strict=True):
        first, second = (set(np.argsort(-x.flatten().numpy())[:100].tolist()) for x in (a, b))
        expected.append(len(first & second) / 100)
    np.testing.assert_allclose(metrics.top_100_overlap(Shown(CLEAN), Shown(MOVED)).numpy(), expected)
    few = Shown(CLEAN[:, :5, :5]), Shown(MOVED[:, :5, :5])
    assert metrics.top_100_overlap(*few).tolist() == [1.0] * 3


@pytest.mark.parametrize("side", [12, 60])
def test_overlaps_count_the_largest_pixels(side: int) -> None:
    a, b = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    share = -(-side * side // 20)
    for metric, count in ((metrics.top_k_overlap, share), (metrics.top_100_overlap, 100)):
        expected = []
        for first, second in zip(a, b, strict=True):
            tops = [set(np.argsort(-each.flatten().numpy())[:count].tolist()) for each in (first, second)]
            expected.append(len(tops[0] & tops[1]) / count)
        np.testing.assert_allclose(metric(Shown(a), Shown(b)).numpy(), expected, rtol=1e-6)


def test_maps_with_nan_have_no_rank_correlation_and_constant_ones_have_none_of_kendalls() -> None:
    broken, flat = MOVED.clone(), torch.ones_like(MOVED)
    broken[1, 3, 4] = torch.nan
    for metric in (metrics.spearman, metrics.kendall):
        assert metric(Shown(CLEAN), Shown(broken)).isnan().tolist() == [False, True, False]
    assert metrics.kendall(Shown(CLEAN), Shown(flat)).tolist() == [0.0] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_kept_of_clean_maps_changes_no_figure(dtype: torch.dtype) -> None:
    kept, moved = Shown(CLEAN.to(dtype)), [MOVED.to(dtype), CLEAN.to(dtype), (3 * MOVED).round().to(dtype)]
    for name, metric in MAP_METRICS.items():
        for each in moved:
            expected = [metric(Shown(a[None]), Shown(b[None])) for a, b in zip(kept.maps, each, strict=True)]
            torch.testing.assert_close(metric(kept, Shown(each)), torch.cat(expected), msg=name)


def test_of_several_draws_the_largest_counts_and_of_other_figures_the_mean() -> None:
    changed = {"prediction_changed": torch.tensor([0.0, 1.0])}
    draws = [
        {"max_sensitivity": torch.tensor([1.0, 5.0]), "ssim": torch.tensor([1.0, 5.0]), **changed},
        {"max_sensitivity": torch.tensor([2.0, 3.0]), "ssim": torch.tensor([2.0, 3.0]), **changed},
    ]
    found = mean_columns(draws)
    assert found["max_sensitivity"].tolist() == [2.0, 5.0]
    assert found["ssim"].tolist() == [1.5, 4.0]
    assert found["max_sensitivity|unchanged"][0] == 2.0
    assert bool(found["max_sensitivity|unchanged"][1].isnan())


def test_max_sensitivity_of_an_evaluation(relu_net: torch.nn.Module, loader: Batches) -> None:
    model = upi.Classifier(relu_net)
    table = upi.evaluate(model, {}, loader, norm="l2", eps=0.5, controls=("random",), draws=3)
    x, target = loader[0]
    gradient, ball = upi.saliency.Gradient(), Ball("l2", 0.5)
    clean = upi.saliency.explain(gradient, model, x, target)
    each = [
        (upi.saliency.explain(gradient, model, in_box(x + noise(x, ball, 0, draw)), target) - clean)
        .flatten(1)
        .norm(dim=1)
        / clean.flatten(1).norm(dim=1)
        for draw in range(3)
    ]
    found = table.per_sample["random"]["max_sensitivity"][: len(x)]
    np.testing.assert_allclose(found, torch.stack(each).amax(0).numpy(), rtol=1e-4)
