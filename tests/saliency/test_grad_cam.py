"""Grad-CAM against its formula, its derivative against differences, and its layer choice."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upi
from tests.conftest import convolutional, images
from upi.core.errors import ConfigError, ModelError
from upi.data.shape import Shape
from upi.models.architectures import build
from upi.saliency import GradCAM, check_maps


def test_the_formula(smooth_net: nn.Module) -> None:
    model, x = upi.Classifier(smooth_net), images(3).double()
    target = torch.tensor([0, 1, 2])
    features = smooth_net[:5](x).detach().requires_grad_()
    logits = smooth_net[5:](features)
    (slope,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), features)
    coarse = F.relu((slope.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True))
    fine = F.interpolate(coarse, (8, 8), mode="bilinear")[:, 0].detach()
    found = GradCAM(layer="4", normalize="none")(model, x, target)
    torch.testing.assert_close(found, fine)
    unit = GradCAM(layer="4")(model, x, target)
    torch.testing.assert_close(unit.sum((1, 2)), torch.ones(3, dtype=torch.float64))


def test_the_last_large_feature_map_is_chosen(smooth_net: nn.Module) -> None:
    model, x, target = upi.Classifier(smooth_net), images(2).double(), torch.tensor([0, 1])
    assert torch.equal(GradCAM()(model, x, target), GradCAM(layer="4")(model, x, target))


def test_its_derivative_is_exact(smooth_net: nn.Module) -> None:
    model, x, target = upi.Classifier(smooth_net), images(2).double(), torch.tensor([0, 1])
    weights = torch.rand(2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def value(point: Tensor) -> Tensor:
        return (weights * GradCAM()(model, point, target)).sum()

    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(point), point)
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = 1e-5
    difference = (value(x + h * direction) - value(x - h * direction)) / (2 * h)
    assert float((slope * direction).sum()) == pytest.approx(float(difference), rel=1e-5)


@pytest.mark.parametrize("name", ["vgg16", "vit"])
def test_it_runs_on_feature_maps_and_tokens(name: str) -> None:
    torch.manual_seed(0)
    model = upi.Classifier(build(name, Shape(3, 32, 5), width=0.2))
    x, target = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    assert check_maps(GradCAM()(model, x, target), x).shape == (2, 32, 32)


def test_an_attack_can_be_fitted_on_it() -> None:
    net = convolutional(nn.ReLU)
    found = upi.UPIGrad(net, saliency="grad_cam", eps=1.0, steps=3).fit([images(8)])
    result = upi.evaluate(net, {"upi-grad": found}, [images(8)], saliency="grad_cam", controls=("random",))
    assert result.rows["upi-grad"].dissimilarity.mean > 0


def test_clear_errors(smooth_net: nn.Module) -> None:
    model, x, target = upi.Classifier(smooth_net), images(1).double(), torch.tensor([0])
    with pytest.raises(ConfigError, match="no layer 'features'"):
        GradCAM(layer="features")(model, x, target)
    with pytest.raises(ModelError, match="6 gives"):
        GradCAM(layer="6")(model, x, target)
    flat = upi.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double())
    with pytest.raises(ModelError, match="no layer with a feature map"):
        GradCAM()(flat, x, target)
