"""Maps against their definitions and limiting cases."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upi
from tests.conftest import convolutional, images
from upi.core.errors import ConfigError, ModelError
from upi.core.types import SaliencyMap
from upi.saliency import Gradient, InputXGradient, IntegratedGradients, SmoothGrad
from upi.saliency.reduce import NORMALISATIONS, REDUCTIONS

RAW = {"normalize": "none"}
MAPS: list[SaliencyMap] = [
    Gradient(),
    Gradient(score="softmax"),
    Gradient(score="log_softmax", reduce="abs_max", normalize="l2"),
    InputXGradient(reduce="sum", normalize="none"),
    IntegratedGradients(steps=3),
    IntegratedGradients(steps=4, rule="gauss_legendre", multiply_by_inputs=False, baseline=0.5),
    SmoothGrad(samples=3),
]
COLOUR = (3, 8, 8)


def _model(seed: int = 0) -> upi.Classifier:
    return upi.Classifier(convolutional(nn.Softplus, channels=3, seed=seed).double())


def _jacobian_row(model: upi.Classifier, x: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """d score / dx by central differences, (C, H, W)."""
    step, rows = 1e-5, []
    for index in range(x.numel()):
        shift = torch.zeros(x.numel(), dtype=x.dtype)
        shift[index] = step
        moved = shift.view_as(x)
        rows.append((score(model((x + moved)[None])[0]) - score(model((x - moved)[None])[0])) / (2 * step))
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("logit", lambda z: z[2]),
        ("softmax", lambda z: z.softmax(0)[2]),
        ("log_softmax", lambda z: z.log_softmax(0)[2]),
    ],
)
def test_simple_gradient_is_the_derivative_of_the_score(name: str, score: Callable[[Tensor], Tensor]) -> None:
    model, x = _model(), images(1, shape=COLOUR).double()
    expected = _jacobian_row(model, x[0], score).abs().sum(0)
    torch.testing.assert_close(
        Gradient(score=name, normalize="none")(model, x, torch.tensor([2]))[0], expected, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("saliency", MAPS, ids=repr)
def test_maps_treat_samples_independently_and_have_the_contract_s_shape(saliency: SaliencyMap) -> None:
    model, x, target = _model(), images(4, shape=COLOUR).double(), torch.tensor([0, 1, 2, 3])
    maps = saliency(model, x, target)
    assert maps.shape == (4, 8, 8)
    assert not maps.requires_grad
    alone = torch.cat([saliency(model, x[i : i + 1], target[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(maps, alone)


@pytest.mark.parametrize("saliency", MAPS, ids=repr)
def test_maps_are_differentiable_on_request(saliency: SaliencyMap) -> None:
    model, target = _model(), torch.tensor([0, 3])
    x = images(2, shape=COLOUR).double().requires_grad_()
    weights = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).double()

    def value(shift: float) -> float:
        return float((weights * saliency(model, (x + shift * direction).detach(), target)).sum())

    (slope,) = torch.autograd.grad((weights * saliency(model, x, target)).sum(), x)
    numeric = (8 * (value(1e-4) - value(-1e-4)) - (value(2e-4) - value(-2e-4))) / 12e-4
    assert float((slope * direction).sum()) == pytest.approx(numeric, rel=1e-6)


def test_smoothgrad_with_one_noiseless_sample_is_the_gradient() -> None:
    model, x, target = _model(), images(2, shape=COLOUR).double(), torch.tensor([0, 1])
    torch.testing.assert_close(
        SmoothGrad(samples=1, noise=0.0)(model, x, target), Gradient()(model, x, target)
    )


def test_one_left_step_of_integrated_gradients_is_the_gradient_at_the_baseline() -> None:
    model, x, target = _model(), images(2, shape=COLOUR).double(), torch.tensor([0, 1])
    one = IntegratedGradients(steps=1, rule="left", multiply_by_inputs=False, baseline=0.25)
    expected = Gradient()(model, torch.full_like(x, 0.25), target)
    torch.testing.assert_close(one(model, x, target), expected)


def test_a_linear_model_has_the_same_map_everywhere_and_exact_integrated_gradients() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    model, x, target = upi.Classifier(linear), images(3).double(), torch.tensor([0, 1, 2])
    weights = linear[1].weight[target].view(3, 8, 8)
    torch.testing.assert_close(Gradient(**RAW)(model, x, target), weights.abs().detach())
    integrated = IntegratedGradients(steps=1, reduce="sum", normalize="none")
    torch.testing.assert_close(integrated(model, x, target), (weights * x[:, 0]).detach())
    assert integrated.completeness_error(model, x, target).max() < 1e-12


@pytest.mark.parametrize(("rule", "order"), [("left", 1), ("midpoint", 2)])
def test_completeness_error_shrinks_at_the_rule_s_order(rule: str, order: int) -> None:
    model, x, target = _model(), images(4, shape=COLOUR).double(), torch.tensor([0, 1, 2, 3])

    def error(steps: int) -> float:
        return float(IntegratedGradients(steps=steps, rule=rule).completeness_error(model, x, target).mean())

    assert error(16) / error(32) == pytest.approx(2**order, rel=0.15)


def test_gauss_legendre_is_complete_with_few_nodes() -> None:
    model, x, target = _model(), images(4, shape=COLOUR).double(), torch.tensor([0, 1, 2, 3])
    few = IntegratedGradients(steps=8, rule="gauss_legendre", multiply_by_inputs=False)
    assert few.completeness_error(model, x, target).max() < 1e-7


def test_softmax_maps_survive_saturation() -> None:
    """At a log-odds of 60 the float32 textbook gradient is zero; the direction is not."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    with torch.no_grad():
        net[1].weight[0] = torch.linspace(1, 3, 64)
        net[1].weight[1] = -torch.linspace(1, 3, 64)
    model, x, target = upi.Classifier(net), torch.full((1, 1, 8, 8), 0.25), torch.tensor([0])
    assert model(x).softmax(1)[0, 0] == 1
    expected = Gradient()(model, x, target)
    for score in ("softmax", "log_softmax"):
        torch.testing.assert_close(Gradient(score=score)(model, x, target), expected)


def test_reductions_and_normalisations() -> None:
    attribution = torch.tensor([[[[1.0, -2.0]], [[-3.0, 1.0]]]])
    expected = {"abs_sum": [[4.0, 3.0]], "abs_max": [[3.0, 2.0]], "sum": [[-2.0, -1.0]]}
    for name, reduce in REDUCTIONS.items():
        assert reduce(attribution)[0].tolist() == expected[name]
    maps = torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]])
    assert NORMALISATIONS["l1"](maps)[0].abs().sum() == pytest.approx(1)
    assert NORMALISATIONS["l2"](maps)[0].norm() == pytest.approx(1)
    assert torch.equal(NORMALISATIONS["none"](maps), maps)
    assert all(norm(maps)[1].abs().sum() == 0 for norm in NORMALISATIONS.values())


def test_custom_callables_pass_through_and_unknown_names_list_the_known_ones() -> None:
    custom = Gradient(score="softmax")
    assert upi.saliency.resolve(custom) is custom
    with pytest.raises(
        ConfigError,
        match=r"unknown saliency map 'lime'; known: attention_rollout, blurred_",
    ):
        upi.saliency.resolve("lime")


def test_the_paper_s_forms_explain_the_softmax_output() -> None:
    assert upi.saliency.resolve("gradient", paper=True) == Gradient(score="softmax")
    integrated = upi.saliency.resolve("integrated_gradients", paper=True)
    assert isinstance(integrated, IntegratedGradients)
    assert (integrated.steps, integrated.multiply_by_inputs, integrated.score) == (10, False, "softmax")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IntegratedGradients(steps=0), "at least 1 step"),
        (lambda: IntegratedGradients(rule="simpson"), "unknown quadrature rule 'simpson'; known: gauss_leg"),
        (lambda: SmoothGrad(samples=0), "samples >= 1"),
        (lambda: SmoothGrad(noise=-1), "noise >= 0"),
    ],
)
def test_bad_options_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_bad_names_inside_a_map_are_refused_on_use() -> None:
    model, x, target = _model(), images(1, shape=COLOUR).double(), torch.tensor([0])
    for options, message in (
        ({"score": "margin"}, "unknown score 'margin'"),
        ({"reduce": "mean"}, "unknown channel reduction 'mean'"),
        ({"normalize": "max"}, "unknown map normalisation 'max'"),
    ):
        with pytest.raises(ConfigError, match=message):
            Gradient(**options)(model, x, target)
    with pytest.raises(ModelError, match="class 9 asked for, the model has 4 classes"):
        Gradient()(model, x, torch.tensor([9]))


def test_guided_back_propagation_is_the_rule_written_out() -> None:
    torch.manual_seed(0)
    first, second, head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), head)
    x, target = torch.rand(4, 1, 2, 3), torch.tensor([0, 1, 2, 0])
    a = first(x.flatten(1))
    b = second(a.relu())
    up = head.weight[target].relu() * (b > 0)
    up = (up @ second.weight).relu() * (a > 0)
    expected = (up @ first.weight).view_as(x).abs().sum(1)
    found = upi.saliency.GuidedBackprop(normalize="none")(upi.Classifier(net), x, target)
    torch.testing.assert_close(found, expected)


def test_guided_back_propagation_needs_relu() -> None:
    with pytest.raises(ModelError, match="needs a network with ReLU"):
        upi.saliency.GuidedBackprop()(
            nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), torch.rand(1, 1, 2, 3), torch.tensor([0])
        )


def test_guided_back_propagation_can_be_fitted_through_the_surrogate() -> None:
    found = upi.UPIGrad(convolutional(nn.ReLU), saliency="guided_backprop", eps=0.5, steps=3).fit([images(8)])
    assert float(found.delta.norm()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("library", ["torch", "fused", "eager"])
def test_attention_rollout_is_the_product_of_the_blocks(library: str) -> None:
    """Against attention probabilities taken by hooks on the softmax of an unfused network."""
    torch.manual_seed(0)
    if library == "torch":
        layers = [nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2)]
        blocks: Any = nn.ModuleList(layers).eval()
    x = torch.rand(2, 3, 32, 32)
    if library != "torch":
        vit = import_module("timm").create_model(
            "vit_tiny_patch16_224", pretrained=False, num_classes=3, img_size=32, depth=2
        )
        net = vit.eval()
        for block in net.blocks:
            block.attn.fused_attn = library == "fused"
        kept: list[Tensor] = []
        slow = deepcopy(net)
        for block in slow.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda m, a, out: kept.append(out.mean(1)))
        with torch.no_grad():
            slow(x)
        skip = torch.eye(5)
        rolled = (skip + kept[1]) / 2 @ ((skip + kept[0]) / 2)
        coarse = rolled[:, 0, 1:].reshape(2, 1, 2, 2)
    else:
        net = Patches(blocks)
        kept = []
        tokens = net.tokens(x)
        for block in blocks:
            _, weights = block.self_attn(tokens, tokens, tokens)
            kept.append(weights)
            tokens = block(tokens)
        skip = torch.eye(16)
        rolled = (skip + kept[1]) / 2 @ ((skip + kept[0]) / 2)
        coarse = rolled.mean(1).reshape(2, 1, 4, 4)
    fine = F.interpolate(coarse, (32, 32), mode="bilinear")[:, 0]
    found = upi.saliency.AttentionRollout(normalize="none")(upi.Classifier(net), x, torch.tensor([0, 1]))
    torch.testing.assert_close(found, fine.detach(), rtol=1e-4, atol=1e-6)


class Patches(nn.Module):
    """Tokens of patches without a class token, through given blocks."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.patch, self.blocks, self.head = nn.Conv2d(3, 8, 8, 8), blocks, nn.Linear(8, 3)

    def tokens(self, x: Tensor) -> Tensor:
        return self.patch(x).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


def test_attention_rollout_needs_attention() -> None:
    with pytest.raises(ModelError, match="attention between all patches"):
        upi.saliency.AttentionRollout()(convolutional(nn.ReLU), images(2), torch.tensor([0, 1]))


def test_baselines_made_of_the_image() -> None:
    x = images(3).double()
    flat = torch.full_like(x, 0.4)
    for kind in ("blur", "mean"):
        baseline = upi.saliency.IntegratedGradients(baseline=kind)._baseline(x)
        assert baseline.shape == x.shape
        torch.testing.assert_close(upi.saliency.IntegratedGradients(baseline=kind)._baseline(flat), flat)
        assert float(baseline.std()) < float(x.std())
    mean = upi.saliency.IntegratedGradients(baseline="mean")._baseline(x)
    torch.testing.assert_close(mean[:, 0, 0, 0], x.mean((1, 2, 3)))
    with pytest.raises(ConfigError, match="unknown baseline 'black'"):
        upi.saliency.IntegratedGradients(baseline="black")
