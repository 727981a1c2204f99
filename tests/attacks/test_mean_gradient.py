"""One universal step against its definition."""

from __future__ import annotations

import torch
from torch import nn

import upi
from tests.conftest import Batches, convolutional, images
from upi.attacks.mean_gradient import MeanGradient
from upi.core.seeding import generator
from upi.saliency import Gradient


def test_it_is_the_step_along_the_mean_gradient_at_a_random_start() -> None:
    """Computed by autograd in one graph, on a smooth network, in float64."""
    net, x = convolutional(nn.Softplus).double(), images(12).double()
    model = upi.Classifier(net)
    attack = MeanGradient(model, eps=0.5, surrogate=None)
    found = attack.fit(list(torch.split(x, 5)))
    start = attack.ball.sample((1, 1, 8, 8), generator(0, "mean-gradient")).double()
    target, shared = model.predict(x), start.clone().requires_grad_()
    change = upi.dissimilarity.relative_l2(
        Gradient()(model, x, target), Gradient()(model, x + shared, target)
    )
    (slope,) = torch.autograd.grad(change.mean(), shared)
    expected = attack.ball.outward(start + 0.5 * slope / slope.norm())
    torch.testing.assert_close(found.delta.double()[None], expected, rtol=1e-5, atol=1e-6)


def test_one_step_does_more_than_noise_and_less_than_many(relu_net: nn.Module, loader: Batches) -> None:
    rows = {
        "one": MeanGradient(relu_net, eps=1.0).fit(loader),
        "many": upi.UPIGrad(relu_net, eps=1.0, steps=40).fit(loader),
    }
    table = upi.evaluate(relu_net, rows, loader, controls=("random",)).rows
    assert (
        table["random"].dissimilarity.mean
        < table["one"].dissimilarity.mean
        < table["many"].dissimilarity.mean
    )
