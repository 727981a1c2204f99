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
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import in_box

CLEAN, MOVED = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_kendall_is_scipys_also_with_ties() -> None:
    coarse = (4 * CLEAN).round()
    for a, b in ((CLEAN, MOVED), (coarse, MOVED), (CLEAN, CLEAN)):
        pairs = zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)
        expected = [kendalltau(x, y).statistic for x, y in pairs]
        np.testing.assert_allclose(metrics.kendall(a, b).numpy(), expected, atol=1e-12)


def test_kendall_of_large_maps_is_an_estimate_of_the_whole() -> None:
    a = torch.rand(1, 90, 90, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = a + 0.3 * torch.rand(1, 90, 90, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = kendalltau(a.flatten().numpy(), b.flatten().numpy()).statistic
    assert float(metrics.kendall(a, b)) == pytest.approx(whole, abs=0.02)
    assert torch.equal(metrics.kendall(a, b), metrics.kendall(a, b))


def test_top_100_is_fixed_and_counts_pixels() -> None:
    expected = []
    for a, b in zip(CLEAN, MOVED, strict=True):
        first, second = (set(np.argsort(-x.flatten().numpy())[:100].tolist()) for x in (a, b))
        expected.append(len(first & second) / 100)
    np.testing.assert_allclose(metrics.top_100_overlap(CLEAN, MOVED).numpy(), expected)
    assert metrics.top_100_overlap(CLEAN[:, :5, :5], MOVED[:, :5, :5]).tolist() == [1.0] * 3


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
