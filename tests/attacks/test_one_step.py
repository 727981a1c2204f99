"""The paper's per-image perturbation: one raw gradient step from tiny noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import Batches, convolutional, images
from upi.attacks.one_step import START, distance
from upi.core.errors import ConfigError, ZeroGradientError
from upi.core.seeding import generator
from upi.saliency import Gradient

pytestmark = pytest.mark.slow


@pytest.fixture
def net() -> nn.Module:
    return convolutional(nn.ReLU).double()


def _softmax_gradient(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    score = net(x).softmax(1)[range(len(x)), target].sum()
    (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    return gradient


def by_hand(net: nn.Module, x: Tensor, target: Tensor, eps: float) -> Tensor:
    """The formula written out with autograd alone."""
    noise = torch.randn(x.shape, generator=generator(0, "one-step")).double()
    start = START * noise / noise.flatten(1).norm(dim=1)[:, None, None, None]
    point = (x + start).requires_grad_()
    clean, slope = (_softmax_gradient(net, z, target) for z in (x.clone().requires_grad_(), point))
    unit = [m.abs().sum(1) / m.abs().sum((1, 2, 3))[:, None, None] for m in (clean, slope)]
    (gradient,) = torch.autograd.grad((unit[1] - unit[0]).flatten(1).norm(dim=1).sum(), point)
    moved = start + gradient
    return x + eps * moved / moved.flatten(1).norm(dim=1)[:, None, None, None]


def test_it_is_the_published_formula_without_clipping(net: nn.Module) -> None:
    x = images(5).double()
    target = upi.Classifier(net).predict(x)
    attack = upi.OneStepAttack(net, eps=0.8, preset="paper")
    torch.testing.assert_close(attack(x, target), by_hand(net, x, target, 0.8), rtol=1e-6, atol=1e-8)
    lengths = (attack(x, target) - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.8))


def test_the_protocol_clips_and_signs_are_opposite(net: nn.Module) -> None:
    x = images(5).double()
    target = upi.Classifier(net).predict(x)
    plus = upi.OneStepAttack(net, eps=0.8, clip=False)
    minus = replace(plus, sign=-1)
    torch.testing.assert_close(plus(x, target) - x, x - minus(x, target))
    clipped = upi.OneStepAttack(net, eps=6.0)(x, target)
    assert clipped.min() == 0
    assert clipped.max() == 1


def test_other_scores_are_attacked_through_the_softmax_output(net: nn.Module) -> None:
    x = images(4).double()
    target = upi.Classifier(net).predict(x)
    named, chosen = (
        upi.OneStepAttack(net, eps=0.5, saliency=saliency)(x, target)
        for saliency in ("gradient", Gradient(score="logit"))
    )
    torch.testing.assert_close(named, chosen)


def test_options_and_a_map_without_gradient() -> None:
    with pytest.raises(ConfigError, match="sign must be 1 or -1, got 0"):
        upi.OneStepAttack(convolutional(nn.ReLU), eps=1, sign=0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    logit = lambda model, x, target: 0 * x.sum(1) + 1  # noqa: E731
    attack = upi.OneStepAttack(linear, eps=1, saliency=logit)
    with pytest.raises(ZeroGradientError):
        attack(images(2), torch.zeros(2, dtype=torch.long))


def test_distance_is_that_of_the_maps() -> None:
    first, second = torch.rand(3, 4, 4), torch.rand(3, 4, 4)
    torch.testing.assert_close(distance(first, second), (first - second).flatten(1).norm(dim=1))


@pytest.mark.parametrize("preset", ["protocol", "paper"])
def test_every_table_has_it_with_the_better_sign_and_both_shares(
    relu_net: nn.Module, loader: Batches, preset: str
) -> None:
    found = upi.UPIGrad(relu_net, eps=1.0, steps=5, preset=preset).fit(loader)
    table = upi.evaluate(relu_net, {"upi-grad": found}, loader, preset=preset)
    mean = {name: row.dissimilarity.mean for name, row in table.rows.items()}
    assert list(table.rows)[:2] == ["upi-grad", "per-image"]
    assert table.rows["per-image-one-step"].kind == "per-image"
    signs = [
        upi.evaluate(
            relu_net,
            {"mine": upi.OneStepAttack(relu_net, eps=1.0, preset=preset, sign=sign)},
            loader,
            preset=preset,
            eps=1.0,
            controls=False,
        )
        .rows["mine"]
        .dissimilarity.mean
        for sign in (1, -1)
    ]
    assert mean["per-image-one-step"] == pytest.approx(max(signs), rel=1e-6)
    row = table.rows["upi-grad"]
    excess, room = mean["upi-grad"] - mean["random"], mean["per-image-one-step"] - mean["random"]
    assert row.share_of_one_step == pytest.approx(excess / room if room > 0 else float("nan"), nan_ok=True)
    assert "share_of_one_step" in row.to_dict()
    assert not any("opposite" in name for name in table.rows)


def test_an_unclipped_row_may_leave_the_box_and_no_other(relu_net: nn.Module, loader: Batches) -> None:
    published = upi.OneStepAttack(relu_net, eps=5.0, preset="paper")
    table = upi.evaluate(relu_net, {"mine": published}, loader, eps=5.0, controls=False)
    assert table.rows["mine"].realised_norm.mean == pytest.approx(5.0, rel=1e-4)
    with pytest.raises(upi.errors.DataError, match=r"the output of 'mine'"):
        upi.evaluate(relu_net, {"mine": lambda x, target: x + 3}, loader, eps=5.0, controls=False)
