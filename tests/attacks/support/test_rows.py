"""Rows of G and the curvature operator against dense oracles; the propositions, numerically."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import foldnorm
from torch import Tensor, nn

from tests.conftest import convolutional, images
from upi.attacks.support.curvature import CurvatureOperator, quadratic_form
from upi.attacks.support.gradients import gradients
from upi.attacks.support.objective import MapChange
from upi.attacks.support.rows import ExplainedImages, GradientRows, RowPlan, gradient_rows, stein_rows
from upi.attacks.support.smoothing import Smoothing
from upi.core.errors import ConfigError, ZeroGradientError
from upi.data.batches import Batch
from upi.dissimilarity import DISSIMILARITIES, TargetMap
from upi.linalg import gram, power, sketch
from upi.network.classifier import Classifier
from upi.saliency import Gradient, IntegratedGradients

pytestmark = pytest.mark.slow

SIDE = 4


def _tiny(activation: nn.Module) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 12), activation, nn.Linear(12, 3))
    return Classifier(net.double())


def _images(model: Classifier, name: str = "relative_l2") -> ExplainedImages:
    loader = [images(6, shape=(1, SIDE, SIDE)), images(4, shape=(1, SIDE, SIDE), seed=1)]
    return ExplainedImages(
        model.surrogate(None, fast=False), MapChange(Gradient(), DISSIMILARITIES[name]), loader
    )


def _uneven() -> ExplainedImages:
    """An objective that is not even in Z, so that the expectation of a row is not zero."""
    towards = TargetMap(torch.arange(SIDE * SIDE, dtype=torch.float64).view(SIDE, SIDE) / 120)
    plain = _images(_tiny(nn.Softplus()))
    return ExplainedImages(plain.surrogate, MapChange(Gradient(), towards), plain.loader)


def _values(given: ExplainedImages, batch: Batch, perturbed: Tensor) -> Tensor:
    return given.objective.measured(given.surrogate, batch, perturbed)


def test_both_forms_of_the_rows_have_the_same_expectation() -> None:
    """Stein: E[grad D(x + Z)] = E[Z D(x + Z)] / sigma^2, within five standard errors."""
    given, plan = _uneven(), RowPlan(sigma=0.3, draws=4000, seed=0)
    batch = next(given.shares()).whole
    noise = (
        plan.sigma * torch.randn(4000, *batch.x.shape, generator=torch.Generator().manual_seed(0)).double()
    )
    direct = torch.stack(list(gradient_rows(given, batch, list(noise), plan)))
    values = torch.stack([_values(given, batch, batch.x + z) for z in noise])
    terms = noise.flatten(2) * (values - values.mean(0))[:, :, None] / plan.sigma**2
    (stein,) = stein_rows(given, batch, list(noise), plan)
    torch.testing.assert_close(stein, terms.mean(0) * plan.draws / (plan.draws - 1))
    error = (direct.std(0) + terms.std(0)) / math.sqrt(plan.draws)
    assert ((direct.mean(0) - stein).abs() <= 5 * error).all()
    assert (direct.mean(0).norm(dim=1) > 5 * direct.std(0).norm(dim=1) / math.sqrt(plan.draws)).all()


def test_one_stein_draw_is_noise_times_value() -> None:
    given, plan = _images(_tiny(nn.Softplus())), RowPlan(sigma=0.1, draws=1, seed=3)
    batch = next(given.shares()).whole
    noise = Smoothing(0.1, SIDE * SIDE, seed=3).draw(batch.x, 0)
    expected = noise.flatten(1) * _values(given, batch, batch.x + noise)[:, None] / plan.sigma**2
    torch.testing.assert_close(next(stein_rows(given, batch, [noise], plan)), expected)


def test_rows_are_one_fixed_matrix_and_match_a_dense_solution() -> None:
    given = _images(_tiny(nn.Softplus()))
    plan = RowPlan(sigma=0.05, draws=2, seed=5)
    operator = GradientRows(given, rows="gradient", plan=plan)
    first, second = torch.cat(list(operator.blocks())), torch.cat(list(operator.blocks()))
    assert torch.equal(first, second)
    assert first.shape == (20, SIDE * SIDE)
    dense, smoothing, first_row = [], Smoothing(0.05, SIDE * SIDE, seed=5), 0
    for batch in (share.whole for share in given.shares()):
        for _ in range(2):
            point = batch.x + smoothing.draw(batch.x, first_row)
            first_row += len(batch)
            for i in range(len(batch)):
                one = Batch(batch.x[i : i + 1], batch.target[i : i + 1], batch.clean[i : i + 1], 0)
                dense.append(
                    gradients(
                        given.surrogate,
                        given.objective,
                        one,
                        point[i : i + 1],
                        where="dense",
                    ).gradient.flatten()
                )
    truth = np.linalg.svd(torch.stack(dense).numpy())[2][0]
    for solve in (gram, sketch):
        assert abs(solve(operator).vectors[0].numpy() @ truth) > 1 - 1e-9


def test_clipped_rows_look_at_clipped_images_and_ignore_clipped_pixels() -> None:
    given = _images(_tiny(nn.Softplus()))
    given.loader[0][:, :, 0] = 0.0  # type: ignore[index]
    plan = RowPlan(sigma=0.1, draws=1, seed=0, clip=True)
    batch = next(given.shares()).whole
    noise = Smoothing(0.1, SIDE * SIDE, seed=0).draw(batch.x, 0)
    point = batch.x + noise
    (rows,) = gradient_rows(given, batch, [noise], plan)
    below = (point < 0).flatten(1)
    assert below.any()
    assert (rows[below] == 0).all()
    expected = gradients(given.surrogate, given.objective, batch, point.clamp(0, 1), where="x").gradient
    torch.testing.assert_close(rows[~below], expected.flatten(1)[~below])


@pytest.mark.parametrize("name", ["relative_l2", "squared_l2", "cosine", "pearson", "mass_center"])
def test_curvature_operator_equals_the_dense_hessian_of_the_map_change(name: str) -> None:
    """J^T M J is the Hessian of form(I(x), I(x + delta)) at delta = 0, averaged over images."""
    given = _images(_tiny(nn.Softplus()), name)
    form = quadratic_form(DISSIMILARITIES[name])
    operator = CurvatureOperator(given)
    dense = operator.matmat(torch.eye(operator.dim, dtype=torch.float64))
    torch.testing.assert_close(dense, dense.T, rtol=1e-8, atol=1e-10)
    oracle = torch.zeros_like(dense)
    for batch in (share.whole for share in given.shares()):
        for i in range(len(batch)):
            oracle += _second_differences(given, form, batch, i) / 10
    scale = oracle.abs().max()
    assert (dense - oracle).abs().max() < 1e-5 * scale
    assert torch.linalg.eigvalsh(dense).min() > -1e-9 * scale


def _second_differences(given: ExplainedImages, form: object, batch: Batch, i: int) -> Tensor:
    x, target, h = batch.x[i : i + 1], batch.target[i : i + 1], 1e-4
    count = x.numel()
    shifts = h * torch.eye(count, dtype=torch.float64).view(count, *x.shape[1:])

    def values(points: Tensor) -> Tensor:
        maps = given.objective.saliency(given.surrogate, points, target.expand(len(points)))
        return form(batch.clean[i : i + 1].expand_as(maps), maps).detach()  # type: ignore[operator]

    rows = []
    for a in range(count):
        sums = [values(x + s * shifts[a] + t * shifts) for s in (1, -1) for t in (1, -1)]
        rows.append((sums[0] - sums[1] - sums[2] + sums[3]) / (4 * h * h))
    return torch.stack(rows)


def test_all_solvers_find_the_top_of_the_curvature() -> None:
    operator = CurvatureOperator(_images(_tiny(nn.Softplus())))
    exact = gram(operator).vectors[0]
    assert float((sketch(operator).vectors[0] @ exact).abs()) > 1 - 1e-6
    assert float((power(operator, steps=300).vectors[0] @ exact).abs()) > 0.99


def test_the_curvature_of_a_map_of_many_passes_is_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = _tiny(nn.Softplus()), list[int]()
    model.net.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    objective = MapChange(IntegratedGradients(steps=8), DISSIMILARITIES["relative_l2"])
    given = ExplainedImages(
        model.surrogate(None, fast=False), objective, [images(7, shape=(1, SIDE, SIDE)).double()]
    )
    block = torch.randn(SIDE * SIDE, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = CurvatureOperator(given).matmat(block)
    assert seen.count(56) == 2  # all copies of seven images: their clean maps, and the graph
    monkeypatch.setattr("upi.attacks.support.gradients.NODES", 16)
    seen.clear()
    torch.testing.assert_close(CurvatureOperator(given).matmat(block), whole)
    assert seen.count(56) == 1
    assert (seen.count(16), seen.count(8)) == (3, 1)  # one graph for all columns of the block


def test_dissimilarities_without_curvature_are_refused() -> None:
    for change in (DISSIMILARITIES["top_k"], TargetMap(torch.ones(SIDE, SIDE))):
        with pytest.raises(ConfigError, match="no curvature at equal maps"):
            quadratic_form(change)


def test_relu_rows_without_a_surrogate_are_refused_and_stein_rows_are_not() -> None:
    model = Classifier(convolutional(nn.ReLU))
    given = ExplainedImages(
        model.surrogate(None, fast=False), MapChange(Gradient(), DISSIMILARITIES["relative_l2"]), [images(4)]
    )
    plan = RowPlan(sigma=0.1, draws=4, seed=0)
    with pytest.raises(ZeroGradientError, match="gradient rows of G: the attack gradient is exactly zero"):
        list(GradientRows(given, rows="gradient", plan=plan).blocks())
    assert torch.cat(list(GradientRows(given, rows="stein", plan=plan).blocks())).abs().max() > 0


def _folded(mean: float, deviation: float) -> float:
    """E|N(mean, deviation^2)|."""
    return float(foldnorm.mean(abs(mean) / deviation, scale=deviation))


@pytest.mark.parametrize("ratio", [1.2, 2.0, 10.0])
def test_the_two_sided_bound_holds_with_the_curvature_of_steins_lemma(ratio: float) -> None:
    """D = |a.(x + u + Z) + b| is L-Lipschitz with L = ||a||; tau = L sqrt(d) eps^2 / sigma < lambda."""
    rng = np.random.default_rng(0)
    dim, eps, sigma = 5, 0.3, 0.4
    for _ in range(20):
        a, offset = rng.normal(size=dim), rng.normal()
        delta = rng.normal(size=dim)
        delta *= eps / np.linalg.norm(delta)
        lipschitz = float(np.linalg.norm(a))
        tau = lipschitz * math.sqrt(dim) * eps**2 / sigma
        price, deviation = ratio * tau, sigma * lipschitz

        def smoothed(s: float, a=a, b=offset, d=delta, w=deviation) -> float:  # type: ignore[no-untyped-def]
            return _folded(s * float(a @ d) + b, w)

        step = 1e-4
        slope = (smoothed(step) - smoothed(-step)) / (2 * step)
        best = minimize_scalar(
            lambda s, h=smoothed, p=price: p * s * s / 2 - h(s), bounds=(-50, 50), options={"xatol": 1e-9}
        )
        gain = -float(best.fun) - smoothed(0.0)
        assert slope**2 / (2 * (price + tau)) - 1e-9 <= gain <= slope**2 / (2 * (price - tau)) + 1e-9


def test_the_two_sided_bound_holds_for_a_smooth_network_with_its_measured_curvature() -> None:
    """The same bound with tau replaced by the largest |h''| seen along the direction."""
    given = _uneven()
    batch = next(given.shares()).whole
    rng = torch.Generator().manual_seed(1)
    noise = 0.2 * torch.randn(64, 1, SIDE, SIDE, generator=rng).double()
    for i in range(len(batch)):
        delta = torch.randn(1, 1, SIDE, SIDE, generator=rng).double()
        delta *= 0.3 / delta.norm()
        x, target, clean = batch.x[i : i + 1], batch.target[i], batch.clean[i]
        one = Batch(x.expand_as(noise), target.expand(64), clean.expand(64, -1, -1), 0)

        def h(s: float, one: Batch = one, delta: Tensor = delta) -> float:
            return float(_values(given, one, one.x + s * delta + noise).mean())

        step = 1e-3
        grid = torch.linspace(-4, 4, 161).tolist()
        bends = [(h(s + step) - 2 * h(s) + h(s - step)) / step**2 for s in grid]
        curvature, slope = 1.05 * max(map(abs, bends)), (h(step) - h(-step)) / (2 * step)
        assert abs(slope) > 1e-3
        price = 3 * curvature
        reach = 2 * abs(slope) / (price - curvature)
        best = minimize_scalar(
            lambda s, h=h, p=price: p * s * s / 2 - h(s), bounds=(-reach, reach), options={"xatol": 1e-9}
        )
        gain = -float(best.fun) - h(0.0)
        assert slope**2 / (2 * (price + curvature)) <= gain <= slope**2 / (2 * (price - curvature))


def test_smoothing_noise_is_normal_and_orthogonal_within_a_block() -> None:
    x = torch.zeros(2000, 1, 5, 5, dtype=torch.float64)
    noise = Smoothing(0.5, 25, seed=0).draw(x, 0).flatten(1)
    assert float(noise.var()) == pytest.approx(0.25, rel=0.02)
    assert float((noise**4).mean()) == pytest.approx(3 * 0.5**4, rel=0.05)
    gram_matrix = noise[:25] @ noise[:25].T
    torch.testing.assert_close(gram_matrix, torch.diag(gram_matrix.diag()))
    covariance = noise.T @ noise / 2000
    independent = torch.randn(2000, 25, generator=torch.Generator().manual_seed(0)).double() * 0.5
    spread = (independent.T @ independent / 2000 - 0.25 * torch.eye(25)).norm()
    assert (covariance - 0.25 * torch.eye(25)).norm() < 0.5 * spread


def test_smoothing_noise_depends_on_the_row_and_not_on_the_batches() -> None:
    for dim, shape in ((16, (1, 4, 4)), (1200, (3, 20, 20))):
        x = torch.zeros(40, *shape)
        one = Smoothing(1.0, dim, seed=1)
        assert torch.equal(one.draw(x[:8], 32), Smoothing(1.0, dim, seed=1).draw(x[:8], 32))
        assert not torch.equal(one.draw(x[:8], 32), one.draw(x[:8], 40))
        assert not torch.equal(one.draw(x[:8], 0), Smoothing(1.0, dim, seed=1, epoch=1).draw(x[:8], 0))
    whole = Smoothing(1.0, 16, seed=1).draw(torch.zeros(40, 1, 4, 4), 0)
    assert torch.equal(whole[30:], Smoothing(1.0, 16, seed=1).draw(torch.zeros(10, 1, 4, 4), 30))


def test_rows_take_one_pass_over_the_data_and_explain_each_image_once() -> None:
    passes, explained = [], []

    class Counting:
        def __iter__(self) -> Iterator[Tensor]:
            passes.append(1)
            return iter(torch.split(images(12, shape=(1, SIDE, SIDE)), 4))

    def change(clean: Tensor, perturbed: Tensor) -> Tensor:
        explained.append(len(clean))
        return (clean - perturbed).square().sum((1, 2))

    plain = _images(_tiny(nn.Softplus()))
    given = ExplainedImages(plain.surrogate, MapChange(Gradient(), change), Counting())
    operator = GradientRows(given, rows="gradient", plan=RowPlan(sigma=0.1, draws=1, seed=0))
    passes.clear()
    assert explained == []
    sketch(operator)
    assert (len(passes), explained) == (1, [4, 4, 4])
