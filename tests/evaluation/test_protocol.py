"""The protocol: numbers by hand, controls, flags, eligibility."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import upi
from tests.conftest import Batches, convolutional, images
from upi.core.errors import ConfigError, DataError
from upi.core.types import Perturber, SaliencyMap
from upi.evaluation import METRICS, eps_curve, examples, interval
from upi.evaluation.controls import matched, other_image
from upi.evaluation.metrics import Shown, spearman, top_k_overlap
from upi.network.surrogate import Witness
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation
from upi.saliency import GradCAM, Gradient, InputXGradient, IntegratedGradients, SmoothGrad, explain

pytestmark = pytest.mark.slow


@pytest.fixture
def pattern(relu_net: nn.Module, loader: Batches) -> Perturbation:
    found = upi.UPIGrad(relu_net, eps=1.0, steps=30).fit(loader)
    assert isinstance(found, Perturbation)
    return found


def _codes(table: upi.Evaluation) -> set[str]:
    return {flag.code for flag in table.flags}


def test_the_figure_is_the_definition_computed_by_hand(
    relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    """Relative l2 change of unit-l1 gradient maps of the clean prediction, on the network itself."""

    def by_hand(x: Tensor, target: Tensor) -> Tensor:
        point = x.clone().requires_grad_()
        relu_net.eval()(point).gather(1, target[:, None]).sum().backward()  # type: ignore[no-untyped-call]
        assert point.grad is not None
        maps = point.grad.abs().sum(1).flatten(1)
        return maps / maps.sum(1, keepdim=True)

    values = []
    for x, label in loader:
        clean, moved = by_hand(x, label), by_hand((x + pattern.delta).clamp(0, 1), label)
        values.append((clean - moved).norm(dim=1) / clean.norm(dim=1))
    table = upi.evaluate(relu_net, {"upi-grad": pattern}, loader)
    found = table.per_sample["upi-grad"]["dissimilarity"]
    np.testing.assert_allclose(found, torch.cat(values).numpy(), rtol=1e-4)
    assert table.rows["upi-grad"].dissimilarity.mean == pytest.approx(
        float(torch.cat(values).mean()), rel=1e-5
    )


def test_every_control_is_there_and_the_scales_follow_from_the_rows(
    relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    uap = upi.ClassUAP(relu_net, eps=1.0, steps=5).fit(loader)
    table = upi.evaluate(relu_net, {"upi-grad": pattern, "class-uap": uap}, loader)
    kinds = {name: row.kind for name, row in table.rows.items()}
    assert kinds == {
        "upi-grad": "universal",
        "class-uap": "control",
        "per-image": "per-image",
        "per-image-one-step": "per-image",
        "random": "control",
        "random-matched": "control",
        "tiny-noise": "control",
        "other-image": "control",
    }
    means = {name: row.dissimilarity.mean for name, row in table.rows.items()}
    row = table.rows["upi-grad"]
    assert row.excess_over_noise == pytest.approx(means["upi-grad"] - means["random"])
    assert row.excess_over_matched_noise == pytest.approx(means["upi-grad"] - means["random-matched"])
    share = (means["upi-grad"] - means["random"]) / (means["per-image"] - means["random"])
    assert row.share_of_per_image == pytest.approx(share)
    assert means["tiny-noise"] < means["random"] < means["per-image"]
    assert row["dissimilarity"]["mean"] == row.dissimilarity.mean
    assert all(
        row.dissimilarity.ci95[0] <= row.dissimilarity.mean <= row.dissimilarity.ci95[1]
        for row in table.rows.values()
    )


def test_the_table_is_plain_json_with_the_contract_s_fields(
    relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    plain = json.loads(
        json.dumps(upi.evaluate(relu_net, {"upi-grad": pattern}, loader).to_dict(), allow_nan=False)
    )
    assert {"saliency", "norm", "eps", "n_test", "rows"} <= set(plain)
    for row in plain["rows"]:
        assert {"name", "kind", "prediction_changed", "excess_over_noise", "share_of_per_image"} <= set(row)
        for metric in (*METRICS, "dissimilarity_unchanged"):
            assert {"mean", "ci95"} <= set(row[metric])
        assert set(row["unchanged"]) == set(METRICS)


def test_only_correctly_classified_images_count(
    relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    (x, label), *rest = loader
    spoiled = torch.where(torch.arange(len(label)) < 3, label, (label + 1) % 4)
    table = upi.evaluate(relu_net, {"p": pattern}, [(x, spoiled), *rest], controls=False)
    assert (table.n_test, table.n_seen) == (3 + 32, 48)
    assert table.per_sample["p"]["sample"].tolist() == [0, 1, 2, *range(16, 48)]
    wrong = [(x, (label + 1) % 4) for x, label in loader]
    with pytest.raises(DataError, match="none of the 48 images is classified correctly"):
        upi.evaluate(relu_net, {"p": pattern}, wrong)
    assert "no-labels" in _codes(upi.evaluate(relu_net, {"p": pattern}, [x], controls=False))


def test_figures_among_unchanged_predictions_leave_out_the_others(
    relu_net: nn.Module, loader: Batches
) -> None:
    flip = upi.ClassUAP(relu_net, eps=4.0, steps=60).fit(loader)

    def every_other(x: Tensor, target: Tensor) -> Tensor:
        even = (torch.arange(len(x)) % 2 == 0)[:, None, None, None]
        return torch.where(even, flip(x), x * 0.99)  # type: ignore[operator]

    table = upi.evaluate(relu_net, {"flip": every_other}, loader, controls=False, eps=4.0)
    column, row = table.per_sample["flip"], table.rows["flip"]
    kept = column["prediction_changed"] == 0
    assert 0 < kept.sum() < len(kept)
    assert row.prediction_changed == pytest.approx(1 - kept.mean())
    for metric in METRICS:
        assert row.unchanged[metric].n == kept.sum()
        assert row.unchanged[metric].mean == pytest.approx(column[metric][kept].mean())


def test_matched_noise_has_each_image_s_realised_norm() -> None:
    ball, rng = Ball("l2", 1.0), torch.Generator().manual_seed(0)
    x = torch.rand(6, 1, 8, 8, generator=rng).round()
    size = torch.linspace(0.1, 2.0, 6)
    moved = matched(x, ball.boundary((1, 1, 8, 8), rng), ball, size)
    torch.testing.assert_close(ball.size(moved - x), size, rtol=1e-4, atol=1e-4)
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_the_ceiling_compares_with_another_image() -> None:
    maps = torch.arange(3.0)[:, None, None].expand(3, 2, 2)
    assert other_image(maps, None)[:, 0, 0].tolist() == [2, 0, 1]
    assert other_image(maps[:1], torch.ones(2, 2))[0, 0, 0] == 1
    assert torch.isnan(other_image(maps[:1], None)).all()


def test_spearman_and_overlap_follow_their_definitions() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = (
        torch.rand(4, 9, 9, generator=rng).round(decimals=1),
        torch.rand(4, 9, 9, generator=rng).round(decimals=1),
    )
    for i in range(4):
        expected = spearmanr(a[i].flatten(), b[i].flatten()).statistic
        assert float(spearman(Shown(a), Shown(b))[i]) == pytest.approx(expected, abs=1e-6)
    clean, moved = torch.zeros(1, 10, 10), torch.zeros(1, 10, 10)
    clean[0, 0, :5], moved[0, 0, 2:7] = 1.0, 1.0
    assert float(top_k_overlap(Shown(clean), Shown(moved))) == pytest.approx(3 / 5)


def test_intervals_cover_and_degenerate_cases_have_none() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        found = interval(rng.normal(3.0, 1.0, 60), seed=trial)
        covered += found.ci95[0] <= 3.0 <= found.ci95[1]
    assert covered >= 87
    assert interval(np.array([2.0, 2.0]), seed=0).ci95 == (2.0, 2.0)
    assert interval(np.array([2.0]), seed=0).ci95 == (2.0, 2.0)
    empty = interval(np.array([np.nan]), seed=0)
    assert empty.to_dict() == {"mean": None, "ci95": [None, None], "n": 0}


def test_a_softmax_model_is_flagged(relu_net: nn.Module, loader: Batches, pattern: Perturbation) -> None:
    soft = nn.Sequential(relu_net, nn.Softmax(1))
    assert "softmax-output" in _codes(upi.evaluate(soft, {"p": pattern}, loader, controls=False))
    assert "softmax-output" not in _codes(upi.evaluate(relu_net, {"p": pattern}, loader, controls=False))


def test_a_model_that_is_not_deterministic_is_flagged(pattern: Perturbation) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] * (1 + torch.rand(x.shape[0], 1))

    assert "non-deterministic-model" in _codes(
        upi.evaluate(Noisy(), {"p": pattern}, [images(4)], controls=False)
    )


def test_a_zero_attack_gradient_is_flagged_and_its_row_is_missing(pattern: Perturbation) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    table = upi.evaluate(linear, {"p": pattern}, [images(8)])
    assert "zero-gradient" in _codes(table)
    assert "per-image" not in table.rows
    assert table.rows["p"].dissimilarity.mean == pytest.approx(0, abs=1e-6)
    assert {"random-beats-universal"} <= _codes(table)


def test_a_weak_per_image_attack_is_flagged(
    relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    weak: dict[str, Perturber] = {"upi-grad": pattern, "per-image": lambda x, target: x}
    assert "universal-beats-per-image" in _codes(upi.evaluate(relu_net, weak, loader, controls=False))


def test_many_changed_predictions_are_flagged(relu_net: nn.Module, loader: Batches) -> None:
    flip = upi.ClassUAP(relu_net, eps=4.0, steps=60).fit(loader)
    renamed = Perturbation(flip.delta, flip.ball)
    assert "many-predictions-changed" in _codes(
        upi.evaluate(relu_net, {"flip": renamed}, loader, controls=False)
    )


def test_dead_maps_are_left_out_and_flagged(pattern: Perturbation) -> None:
    class Dead(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            strong = torch.relu(x.mean((1, 2, 3)) - 0.4)
            return torch.stack([strong, strong * 0 - 1, strong * 0 - 2], 1)

    x = torch.cat([torch.full((3, 1, 8, 8), 0.1), torch.full((2, 1, 8, 8), 0.9)])
    x += 0.01 * torch.arange(5)[:, None, None, None]
    table = upi.evaluate(Dead(), {"p": pattern}, [x], controls=False)
    assert "zero-map" in _codes(table)
    assert table.n_test == 2


@pytest.mark.parametrize("controls", [True, False])
def test_modes_and_flags_of_the_network_come_back(
    controls: bool, relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    upi.evaluate(relu_net.train(), {"p": pattern}, loader, controls=controls)
    assert relu_net.training
    assert all(parameter.requires_grad for parameter in relu_net.parameters())


def test_budgets_cannot_be_mixed(relu_net: nn.Module, loader: Batches, pattern: Perturbation) -> None:
    other = upi.RandomPerturbation(relu_net, norm="linf", eps=0.1).fit(loader)
    with pytest.raises(ConfigError, match=r"'other' lives in the linf ball of radius 0\.1"):
        upi.evaluate(relu_net, {"p": pattern, "other": other}, loader)
    weaker = {"p": pattern, "weaker": pattern.scaled(0.5)}
    for order in (weaker, dict(reversed(weaker.items()))):
        with pytest.raises(ConfigError, match="evaluate different budgets separately"):
            upi.evaluate(relu_net, order, loader)
    with pytest.raises(ConfigError, match=r"say norm=\.\.\. and eps="):
        upi.evaluate(relu_net, {"f": lambda x, target: x}, loader)
    with pytest.raises(ConfigError, match="draws must be at least 1"):
        upi.evaluate(relu_net, {"p": pattern}, loader, draws=0)


def test_the_eps_curve_rises_for_every_row(
    relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    points = eps_curve(relu_net, {"upi-grad": pattern}, loader, [0.25, 1.0])
    for name in ("upi-grad", "random", "per-image"):
        means: list[Any] = [point["mean"] for point in points if point["name"] == name]
        assert len(means) == 2
        assert means[0] < means[1]


def test_examples_are_the_extremes_and_the_median(
    relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    table = upi.evaluate(relu_net, {"upi-grad": pattern}, loader, controls=False)
    found = {e.rule: e for e in examples(relu_net, {"upi-grad": pattern}, loader, table.per_sample)}
    values = table.per_sample["upi-grad"]["dissimilarity"]
    assert found["most"].value == pytest.approx(values.max(), rel=1e-4)
    assert found["least"].value == pytest.approx(values.min(), rel=1e-4)
    assert found["least"].value <= found["median"].value <= found["most"].value
    x = torch.cat([x for x, _ in loader])[found["most"].sample]
    torch.testing.assert_close(found["most"].perturbed, (x + pattern.delta).clamp(0, 1))


def test_several_kinds_of_networks_share_one_table_shape() -> None:
    net = convolutional(nn.GELU, channels=3)
    x = images(8, shape=(3, 8, 8))
    found = upi.UPIPCA(net, eps=0.5, surrogate=None).fit([x])
    table = upi.evaluate(
        net, {"upi-pca": found}, [x], saliency="integrated_gradients", dissimilarity="cosine"
    )
    assert table.dissimilarity == "cosine"
    assert table.rows["upi-pca"].dissimilarity.n == 8


def test_few_images_and_a_mostly_wrong_model_are_flagged(
    relu_net: nn.Module, loader: Batches, pattern: Perturbation
) -> None:
    mostly = [(x, torch.where(torch.arange(len(x)) < 2, label, (label + 1) % 4)) for x, label in loader]
    codes = _codes(upi.evaluate(relu_net, {"p": pattern}, mostly, controls=False))
    assert {"few-images", "mostly-misclassified"} <= codes
    more = images(120, seed=7)
    many = upi.evaluate(
        relu_net, {"p": pattern}, [(more, upi.Classifier(relu_net).predict(more))], controls=False
    )
    assert not {"few-images", "mostly-misclassified"} & _codes(many)


@pytest.mark.parametrize(
    "saliency", [Gradient(), InputXGradient(), IntegratedGradients(steps=3), SmoothGrad(samples=2), GradCAM()]
)
def test_predictions_are_witnessed_while_explaining(saliency: SaliencyMap) -> None:
    """Maps of the images themselves give the predictions for free; others ask the network once more."""
    net, calls = convolutional(nn.ReLU), []
    model, x = upi.Classifier(net), images(6)
    target = model.predict(x)
    net.register_forward_hook(lambda *_: calls.append(1))
    witness = Witness(model, x)
    explain(saliency, witness, x, target)
    during = len(calls)
    assert torch.equal(witness.logits.argmax(1), target)
    free = not isinstance(saliency, (IntegratedGradients, SmoothGrad))
    assert len(calls) == during + (0 if free else 1)
    torch.testing.assert_close(witness(x + 0.3), model(x + 0.3))
    torch.testing.assert_close(witness.logits, model(x))
