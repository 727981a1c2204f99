"""Folding batch norm keeps the function."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from upi.zoo.folding import folded
from upi.zoo.nets import Shape, build


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "mobilenet_v2", "vit"])
def test_outputs_stay(name: str) -> None:
    torch.manual_seed(0)
    net, x = build(name, Shape(3, 32, 10), width=0.2), torch.rand(8, 3, 32, 32)
    for _ in range(3):
        net(torch.rand(16, 3, 32, 32))  # running statistics away from their start
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    expected, small = net.eval()(x).detach(), folded(net)
    torch.testing.assert_close(small(x).detach(), expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_what_is_not_a_pair_in_a_sequence_stays() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)).eval()
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded(net).modules()) == 2
