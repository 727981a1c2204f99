"""Batch norm is folded exactly where nothing else reads the convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import upi
from tests.conftest import images
from upi.attacks.support.gradients import gradients
from upi.attacks.support.objective import MapChange, explained_batch
from upi.data.shape import Shape
from upi.models.nets import NETS
from upi.network.kernels import find_foldable

pytestmark = pytest.mark.slow


def _lively(net: nn.Module) -> nn.Module:
    """Batch norms that do something."""
    for seed, module in enumerate(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        rng = torch.Generator().manual_seed(seed)
        count = module.num_features
        around = {name: 0.3 * torch.randn(count, generator=rng) for name in ("running_mean", "bias")}
        above = {name: 0.5 + torch.rand(count, generator=rng) for name in ("running_var", "weight")}
        module.load_state_dict({**module.state_dict(), **around, **above})
    return net.eval().requires_grad_(False)


class Pair(nn.Module):
    """conv, batch norm, and a way in which they can be entangled."""

    def __init__(self, entangled: str = "") -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.entangled = entangled

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out = F.relu(self.norm(y))
        if self.entangled == "read twice":
            out = out + y
        elif self.entangled == "two norms":
            out = out + self.other(y)
        elif self.entangled == "called twice":
            out = out + self.conv(x)
        elif self.entangled == "in a list":
            out = torch.stack([out, y]).sum(0)
        elif self.entangled == "looked at":
            out = out + (y.shape[1] - 4)
        return self.head(out.mean((2, 3)))


@pytest.mark.parametrize(
    ("entangled", "pairs"),
    [("", 1), ("looked at", 1), ("read twice", 0), ("two norms", 0), ("called twice", 0), ("in a list", 0)],
)
def test_only_pairs_that_stand_alone_are_folded(entangled: str, pairs: int) -> None:
    net = _lively(Pair(entangled)).double()
    folding = find_foldable(lambda: net(images(2).double()))
    assert len(folding.weights) == len(folding.norms) == pairs
    model = upi.Classifier(net)
    x = images(3).double()
    with torch.enable_grad():
        quick = model.surrogate(20.0, fast=True)(x.requires_grad_())
    torch.testing.assert_close(quick, model.surrogate(20.0, fast=False)(x))


@pytest.mark.parametrize("arch", [*NETS, "torchvision resnet18"])
def test_logits_maps_and_steps_are_those_of_the_network(arch: str) -> None:
    """In float64 to rounding; the module is as it was."""
    torch.manual_seed(0)
    if arch == "torchvision resnet18":
        net, size = torchvision.models.resnet18(num_classes=5), 64
    else:
        net, size = NETS[arch](Shape(3, 32, 5), 0.25), 32
    net = _lively(net).double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model, x = upi.Classifier(net), images(2, shape=(3, size, size)).double()
    objective = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2, 0.5)
    target = model.predict(x)
    shift = 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found: list[Any] = []
    for fast in (True, False):
        surrogate = model.surrogate(20.0, fast=fast)
        batch = explained_batch(objective, surrogate, x, target)
        found.append((batch, gradients(surrogate, objective, batch, x + shift, where="")))
    (a, quick), (b, plain) = found
    torch.testing.assert_close(a.clean, b.clean, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(a.margin, b.margin)
    error = (quick.gradient - plain.gradient).norm() / plain.gradient.norm()
    assert float(error) < 1e-8
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    if arch not in ("vit", "small-cnn"):
        folding = find_foldable(lambda: net(x))
        assert len(folding.norms) == sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())


@pytest.mark.parametrize("arch", [a for a in NETS if a != "vit"])
def test_a_step_in_float32_agrees_to_one_in_ten_thousand(arch: str) -> None:
    torch.manual_seed(0)
    net = _lively(NETS[arch](Shape(3, 32, 5), 0.25))
    model, x = upi.Classifier(net), images(4, shape=(3, 32, 32))
    objective = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2)
    target = model.predict(x)
    shift = 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for fast in (True, False):
        surrogate = model.surrogate(20.0, fast=fast)
        batch = explained_batch(objective, surrogate, x, target)
        found.append(gradients(surrogate, objective, batch, x + shift, where="").gradient)
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 1e-4


def test_weights_that_changed_between_fits_are_folded_anew() -> None:
    net = _lively(Pair()).double()
    model, x = upi.Classifier(net), images(2).double().requires_grad_()
    for _ in range(2):
        quick = model.surrogate(20.0, fast=True)(x)
        torch.testing.assert_close(quick, model.surrogate(20.0, fast=False)(x))
        with torch.no_grad():
            net.get_submodule("norm").weight.mul_(2)
