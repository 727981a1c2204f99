"""The classifier wrapper changes nothing that it does not give back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import images
from upi.core.errors import ConfigError, DataError, ModelError


class Odd(nn.Module):
    """Returns something that is not logits."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


def _state(net: nn.Module) -> list[object]:
    modes: list[object] = [module.training for module in net.modules()]
    return modes + [parameter.requires_grad for parameter in net.parameters()]


def test_normalisation_is_inside(relu_net: nn.Module) -> None:
    x = images(3, shape=(1, 8, 8))
    model = upi.Classifier(relu_net, mean=(0.4,), std=(0.25,))
    torch.testing.assert_close(model(x), relu_net((x - 0.4) / 0.25))


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_gradient_flags_come_back_also_after_an_exception(fails: bool) -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3), nn.Dropout(0.5)).train()
    net[1].eval()
    net[2].bias.requires_grad_(False)
    before, statistics = _state(net), net[1].running_mean.clone()
    model = upi.Classifier(net)
    if fails:
        with pytest.raises(RuntimeError):
            model(torch.rand(2, 1, 7, 7))
    else:
        with model.frozen():
            assert not any(_state(net))
            assert torch.equal(model(images(4)), model(images(4)))
    assert _state(net) == before
    assert torch.equal(net[1].running_mean, statistics)


def test_weights_get_no_gradient(relu_net: nn.Module) -> None:
    x = images(2).requires_grad_()
    upi.Classifier(relu_net)(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in relu_net.parameters())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(3, 4), r"logits of shape \(N, K\) = \(2, K\), the model returned a tensor of shape \(3"),
        (torch.zeros(2, 4, 1), r"returned a tensor of shape \(2, 4, 1\)"),
        (torch.zeros(2, 4, 7, 7), r"average over positions: output=lambda out: out.mean"),
        (torch.zeros(2, 0), "at least 1 logit"),
        (torch.zeros(2, 4, dtype=torch.long), "floating-point logits"),
        ({"features": torch.zeros(2, 4)}, r"returned dict with \{'features': \(2, 4\)\}; say where"),
        ((torch.zeros(2, 4), torch.zeros(2, 4)), r"tuple of \(\(2, 4\), \(2, 4\)\).*output=0 for the"),
    ],
)
def test_outputs_that_are_not_logits_are_refused(output: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        upi.Classifier(Odd(output))(images(2))


def test_not_a_module_is_refused() -> None:
    with pytest.raises(ModelError, match=r"expected a torch.nn.Module"):
        upi.Classifier(lambda x: x)  # type: ignore[arg-type]


def test_bad_normalisation_is_refused(relu_net: nn.Module) -> None:
    with pytest.raises(ConfigError, match="one finite positive number per channel"):
        upi.Classifier(relu_net, std=(0.0,))
    with pytest.raises(DataError, match="mean has 3 channels, the images have 1"):
        upi.Classifier(relu_net, mean=(0.1, 0.2, 0.3))(images(1))


def test_fingerprint_depends_on_weights_and_normalisation(relu_net: nn.Module) -> None:
    plain = upi.Classifier(relu_net).fingerprint()
    assert upi.Classifier(relu_net).fingerprint() == plain
    assert upi.Classifier(relu_net, mean=(0.5,)).fingerprint() != plain
    with torch.no_grad():
        next(relu_net.parameters()).view(-1)[0] += 1
    assert upi.Classifier(relu_net).fingerprint() != plain
