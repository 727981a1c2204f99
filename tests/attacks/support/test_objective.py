"""Objectives: gradients against central differences, and the silent zero refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import images
from upi.attacks.support.gradients import gradients, require_gradient
from upi.attacks.support.objective import MapChange, Objective, PredictionChange, explained_batch
from upi.core.averaging import mean_over
from upi.core.errors import DataError, ModelError, NonFiniteError, ZeroGradientError
from upi.data.batches import Batch, Share, shares
from upi.dissimilarity import DISSIMILARITIES
from upi.saliency import Gradient, InputXGradient, IntegratedGradients, SmoothGrad

OBJECTIVES: dict[str, Objective] = {
    **{name: MapChange(Gradient(), change) for name, change in DISSIMILARITIES.items()},
    "softmax": MapChange(Gradient(score="softmax"), DISSIMILARITIES["relative_l2"]),
    "input x gradient": MapChange(InputXGradient(), DISSIMILARITIES["relative_l2"]),
    "integrated": MapChange(IntegratedGradients(steps=3), DISSIMILARITIES["relative_l2"]),
    "smoothgrad": MapChange(SmoothGrad(samples=2), DISSIMILARITIES["cosine"]),
    "priced": MapChange(Gradient(), DISSIMILARITIES["relative_l2"], prediction_price=0.7),
    "prediction": PredictionChange(),
}


def _batch(model: upi.Classifier, objective: Objective) -> Batch:
    x = images(5).double()
    target = model.predict(x)
    return explained_batch(objective, model, x, target)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_step_gradients_agree_with_central_differences(name: str, smooth_net: nn.Module) -> None:
    """Relative error at most 1e-7 in float64, by a fourth-order difference."""
    objective, model = OBJECTIVES[name], upi.Classifier(smooth_net)
    batch = _batch(model, objective)
    rng = torch.Generator().manual_seed(3)
    point = batch.x + 0.05 * torch.randn(batch.x.shape, generator=rng).double()
    found = gradients(model, objective, batch, point, where="test")
    direction = found.gradient / found.gradient.norm()

    def value(shift: float) -> float:
        return float(objective.values(model, batch, (point + shift * direction).detach()).sum())

    h = 1e-3
    numeric = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    assert float((found.gradient * direction).sum()) == pytest.approx(numeric, rel=1e-7)


def test_rows_of_the_summed_backward_pass_are_the_samples_own_gradients(smooth_net: nn.Module) -> None:
    model, objective = upi.Classifier(smooth_net), MapChange(Gradient(), DISSIMILARITIES["relative_l2"])
    batch = _batch(model, objective)
    point = batch.x + 0.1
    together = gradients(model, objective, batch, point, where="test").gradient
    for i in range(len(batch)):
        alone = Batch(batch.x[i : i + 1], batch.target[i : i + 1], batch.clean[i : i + 1], 0)
        row = gradients(model, objective, alone, point[i : i + 1], where="test").gradient
        torch.testing.assert_close(row[0], together[i])


def test_the_price_is_zero_at_the_clean_image_and_linear_in_the_lost_margin(smooth_net: nn.Module) -> None:
    model = upi.Classifier(smooth_net)
    free = MapChange(Gradient(), DISSIMILARITIES["relative_l2"])
    priced = MapChange(Gradient(), DISSIMILARITIES["relative_l2"], prediction_price=2.0)
    batch = _batch(model, priced)
    torch.testing.assert_close(priced.values(model, batch, batch.x), free.values(model, batch, batch.x))

    def margin(x: Tensor) -> Tensor:
        logits = model(x)
        own = logits.gather(1, batch.target[:, None])[:, 0]
        return own - logits.scatter(1, batch.target[:, None], -torch.inf).amax(1)

    point = batch.x.clone().requires_grad_()
    (uphill,) = torch.autograd.grad(margin(point).sum(), point)
    reach = torch.tensor([0.0, 1.0, 3.0, 5.0, 8.0]).double()[:, None, None, None]
    other = batch.x - reach * uphill / uphill.flatten(1).norm(dim=1)[:, None, None, None]
    clean, scale = margin(batch.x), margin(batch.x).mean()
    expected = 2.0 * (torch.minimum(clean, scale / 2) - margin(other)).clamp_min(0) / scale
    paid = free.values(model, batch, other) - priced.values(model, batch, other)
    torch.testing.assert_close(paid, expected)
    assert paid[0] == 0
    assert (paid[3:] > 0).all()


def test_only_correctly_classified_images_are_kept_and_none_is_an_error(smooth_net: nn.Module) -> None:
    model, objective = upi.Classifier(smooth_net), MapChange(Gradient(), DISSIMILARITIES["relative_l2"])
    x = images(6)
    label = model.predict(x.double())
    wrong = (label + 1) % 4
    mixed = torch.where(torch.arange(6) < 2, label, wrong)
    kept = list(shares(model, partial(objective.clean, model), [(x, mixed), (x, wrong)], correct_only=True))
    assert [share.count for share in kept] == [2]
    with pytest.raises(DataError, match="none of the 6 images is classified correctly"):
        list(shares(model, partial(objective.clean, model), [(x, wrong)], correct_only=True))
    with pytest.raises(DataError, match="labels are needed"):
        list(shares(model, partial(objective.clean, model), [x], correct_only=True))


def test_non_finite_steps_name_the_batch_and_the_samples(smooth_net: nn.Module, prepared: Batch) -> None:
    def poisoned(clean: Tensor, perturbed: Tensor) -> Tensor:
        value = (clean - perturbed).square().sum((1, 2))
        return value / torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]).double()

    objective = MapChange(Gradient(), poisoned)
    with pytest.raises(NonFiniteError, match=r"step 4: batch 0 gave NaN or infinity in samples \[2\]"):
        gradients(upi.Classifier(smooth_net), objective, prepared, prepared.x + 0.1, where="step 4")


def test_an_exactly_zero_gradient_is_refused_with_remedies() -> None:
    with pytest.raises(ZeroGradientError, match=r"softplus surrogate .*score='softmax'.*rows='stein'"):
        require_gradient(torch.zeros(2, 1, 3, 3), where="step 0")
    require_gradient(torch.full((1,), 1e-30), where="step 0")


def test_maps_and_dissimilarities_of_the_wrong_shape_are_refused(smooth_net: nn.Module) -> None:
    model = upi.Classifier(smooth_net)
    flat = MapChange(lambda model, x, target: x.flatten(1), DISSIMILARITIES["relative_l2"])
    with pytest.raises(ModelError, match=r"must return \(N, H, W\) with N = 5, got \(5, 64\)"):
        _batch(model, flat)
    scalar = MapChange(Gradient(), lambda clean, perturbed: (clean - perturbed).sum())
    with pytest.raises(ModelError, match=r"a dissimilarity must return \(N,\) with N = 5, got \(\)"):
        scalar.values(model, _batch(model, scalar), images(5).double())


def test_means_count_samples_not_batches() -> None:
    def share(*values: float) -> Share:
        x = torch.tensor(values)[:, None, None, None]
        batch = Batch(x, torch.zeros(len(x), dtype=torch.int64), x[:, 0], 0)
        return Share((batch,), (len(x),), 0, 0, len(x))

    def value(batch: Batch) -> Tensor:
        return batch.x.flatten()

    parts = [share(1.0, 2.0, 3.0), share(10.0)]
    assert float(mean_over(parts, value, torch.zeros(()))) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="no samples"):
        mean_over(list[Share](), value, torch.zeros(()))


def test_the_price_is_finite_where_the_surrogate_disagrees_on_every_image(relu_net: nn.Module) -> None:
    """A single image whose surrogate margin is negative: there is no mean margin to divide by."""
    model, x = upi.Classifier(relu_net), images(1)
    wrong = (model.predict(x) + 1) % 4
    objective = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2, prediction_price=0.5)
    surrogate = model.surrogate(20.0)
    with model.frozen():
        batch = explained_batch(objective, surrogate, x, wrong)
        found = gradients(surrogate, objective, batch, x + 0.01, where="test")
    assert bool(torch.isfinite(found.gradient).all())
    assert abs(float(found.values[0])) < 10


def test_map_and_price_share_one_pass(relu_net: nn.Module) -> None:
    """The same value as with two passes, and one pass fewer."""
    model, x, calls = upi.Classifier(relu_net), images(4), []
    relu_net.register_forward_hook(lambda *_: calls.append(1))
    target = model.predict(x)
    free = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2)
    paid = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2, prediction_price=0.5)
    surrogate = model.surrogate(20.0)
    with model.frozen():
        batch = explained_batch(paid, surrogate, x, target)
        assert len(calls) == 3  # prediction, search for batch norms to fold, map and margin together
        shift = 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        plain = gradients(surrogate, free, batch, x + shift, where="test")
        calls.clear()
        both = gradients(surrogate, paid, batch, x + shift, where="test")
        assert len(calls) == 1  # the clean margins are known
        point = (x + shift).requires_grad_()
        price = paid._price(batch, surrogate(point))
        (slope,) = torch.autograd.grad(price.sum(), point)
    torch.testing.assert_close(both.values, (plain.values - price).detach())
    torch.testing.assert_close(both.gradient, plain.gradient - slope, rtol=1e-4, atol=1e-6)
