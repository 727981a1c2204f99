"""Grad-CAM against its formula, its derivative against differences, and its layer choice."""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
    with pytest.raises(ModelError, match="6 gives neither"):
        GradCAM(layer="6")(model, x, target)
    flat = upi.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double())
    with pytest.raises(ModelError, match="no layer with a feature map"):
        GradCAM()(flat, x, target)


class Tokens(nn.Module):
    """A transformer in small: patches, prefix tokens, one block of attention, class token or mean."""

    def __init__(self, patch: int, prefix: int, pooled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(1, 8, patch, patch)
        self.extra = nn.Parameter(torch.randn(1, prefix, 8)) if prefix else None
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if self.extra is not None:
            tokens = torch.cat([self.extra.expand(len(x), -1, -1), tokens], 1)
        seen = self.norm(tokens)
        tokens = self.last(tokens + self.attention(seen, seen, seen, need_weights=False)[0])
        return self.head(tokens.mean(1) if self.pooled else tokens[:, 0])


@pytest.mark.parametrize(("size", "grid"), [((16, 64), (4, 16)), ((16, 16), (4, 4)), ((24, 16), (6, 4))])
@pytest.mark.parametrize(("prefix", "pooled"), [(0, True), (1, False), (5, False), (2, True)])
def test_tokens_are_laid_out_as_the_patches_were(
    size: tuple[int, int], grid: tuple[int, int], prefix: int, pooled: bool
) -> None:
    net = Tokens(4, prefix, pooled).double().eval()
    x, target = torch.rand(2, 1, *size, dtype=torch.float64), torch.tensor([0, 2])
    found = GradCAM(normalize="none")(upi.Classifier(net), x, target)
    layer = "last" if pooled else "norm"  # what the class token reads of patches ends before attention
    kept: list[Tensor] = []
    handle = dict(net.named_modules())[layer].register_forward_hook(lambda m, a, out: kept.append(out))
    logits = net(x)
    handle.remove()
    (slope,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), kept[0])
    features, slopes = (t[:, prefix:].transpose(1, 2).reshape(2, 8, *grid) for t in (kept[0], slope))
    coarse = F.relu((slopes.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True))
    torch.testing.assert_close(found, F.interpolate(coarse, size, mode="bilinear")[:, 0].detach())
    assert bool((found > 0).any())


#: The module whose features are looked at: of a class token's last block what attention reads, as is usual.
LAYERS = {
    "vit_tiny_patch16_224": "blocks.11.norm1",
    "deit_tiny_distilled_patch16_224": "blocks.11.norm1",
    "vit_small_patch14_reg4_dinov2": "blocks.11.norm1",
    "xcit_nano_12_p16_224": "cls_attn_blocks.1.norm1",
    "swin_tiny_patch4_window7_224": "norm",
    "convnext_atto": "stages.3.blocks",
    "resnet18": "layer4",
    "pvt_v2_b0": "stages.3",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_which_features_of_timms_networks_are_looked_at(name: str) -> None:
    timm: Any = import_module("timm")
    torch.manual_seed(0)
    options = {"img_size": 56} if "dinov2" in name else {}
    net = timm.create_model(name, pretrained=False, num_classes=5, **options).eval()
    size = options.get("img_size", 224)
    model, x = upi.Classifier(net), torch.rand(1, 3, size, size)
    target = model.predict(x)
    chosen, named = (
        GradCAM(layer=layer, normalize="none")(model, x, target) for layer in (None, LAYERS[name])
    )
    assert chosen.shape == (1, size, size)
    torch.testing.assert_close(chosen, named)
