"""Views of a classifier: the same call always means the same, whoever called before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import images
from upi.core.errors import ConfigError
from upi.network.surrogate import Witness


def test_a_surrogate_stands_beside_the_network_and_leaves_it_as_it_is(relu_net: nn.Module) -> None:
    model, x = upi.Classifier(relu_net), images(8)
    before = model(x)
    smooth, smoother = model.surrogate(20.0), model.surrogate(2.0)
    first = smooth(x)
    assert not torch.allclose(first, before)
    assert not torch.allclose(smoother(x), first)
    assert torch.equal(smooth(x), first)
    assert torch.equal(model(x), before)


def test_predictions_are_those_of_the_network_itself(relu_net: nn.Module) -> None:
    model, x = upi.Classifier(relu_net), images(32)
    blurred = model.surrogate(0.05)
    assert not torch.equal(blurred(x).argmax(1), model.predict(x))
    assert torch.equal(blurred.predict(x), model.predict(x))
    assert torch.equal(model.predict(x), relu_net(x).argmax(1))


def test_the_former_mode_says_what_to_use_instead(relu_net: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"explain Classifier\.surrogate\(beta\)"):
        upi.Classifier(relu_net).smoothed(20.0)


def test_a_view_answers_a_map_as_the_classifier_does(relu_net: nn.Module) -> None:
    model, x = upi.Classifier(relu_net, mean=(0.5,), std=(0.2,)), images(3).double()
    for view in (model.surrogate(5.0), Witness(model, x)):
        assert view.net is relu_net
        assert view.place(x).dtype == torch.float32
        torch.testing.assert_close(view.normalise(x), (x - 0.5) / 0.2)


class _Counted(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.calls = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x)


def test_a_witness_keeps_the_logits_of_the_images_and_of_nothing_else(relu_net: nn.Module) -> None:
    net, x = _Counted(relu_net), images(4)
    model = upi.Classifier(net)
    witness = Witness(model, x)
    witness(x + 0.1)
    assert net.calls == 1
    torch.testing.assert_close(witness.logits, relu_net(x))
    assert net.calls == 2
    witness = Witness(model, x)
    witness(x.detach().requires_grad_())
    assert not witness.logits.requires_grad
    assert net.calls == 3


def test_a_witness_gives_differentiable_logits_where_the_images_are_differentiated(
    relu_net: nn.Module,
) -> None:
    """A pass without a graph, or over a copy of the images, must not stand in for one with it."""
    net = _Counted(relu_net)
    x = images(4).requires_grad_()
    witness = Witness(upi.Classifier(net), x)
    with torch.no_grad():
        witness(x)
    witness(x.detach())
    witness(x.detach().requires_grad_())
    (slope,) = torch.autograd.grad(witness.logits.sum(), x)
    assert slope.abs().max() > 0
    assert net.calls == 4
    witness(x)
    calls = net.calls
    (again,) = torch.autograd.grad(witness.logits.sum(), x)
    torch.testing.assert_close(again, slope)
    assert net.calls == calls


def test_every_tensor_of_the_same_images_has_a_graph_of_its_own(relu_net: nn.Module) -> None:
    """A map may look at the images twice, each time through another leaf."""
    x = images(4)
    witness = Witness(upi.Classifier(relu_net), x)
    for _ in range(2):
        leaf = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(witness(leaf).sum(), leaf)
        assert slope.abs().max() > 0
