"""The softplus surrogate: what it replaces, what it leaves alone, and that it goes away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upi
from tests.conftest import images
from upi.core.errors import ConfigError
from upi.network.smooth import smooth

BETA = 3.0


class Functional(nn.Module):
    """ReLU as calls, in place, as methods, with ignored return values, and a max-pool."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = self.second(x)
        x.relu_()
        x = F.max_pool2d(x, 2)
        return self.head(torch.relu(x.flatten(1)))


def _soft(x: Tensor) -> Tensor:
    return F.softplus(x, beta=BETA)


ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805
X = torch.linspace(-8, 8, 101, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (F.relu, _soft(X)),
        (torch.relu, _soft(X)),
        (Tensor.relu, _soft(X)),
        (nn.ReLU(), _soft(X)),
        (nn.ReLU(inplace=True), _soft(X)),
        (F.relu_, _soft(X)),
        (lambda x: x.clamp(min=0), _soft(X)),
        (lambda x: torch.clamp(x, 0), _soft(X)),
        (lambda x: x.clamp_min(0), _soft(X)),
        (nn.ReLU6(), _soft(X) - _soft(X - 6)),
        (nn.ReLU6(inplace=True), _soft(X) - _soft(X - 6)),
        (lambda x: x.clamp(0, 6), _soft(X) - _soft(X - 6)),
        (nn.LeakyReLU(0.2), 0.2 * X + 0.8 * _soft(X)),
        (lambda x: F.prelu(x, torch.tensor([0.2], dtype=x.dtype)), 0.2 * X + 0.8 * _soft(X)),
        (nn.Hardswish(), X * (_soft(X + 3) - _soft(X - 3)) / 6),
        (nn.Hardsigmoid(), (_soft(X + 3) - _soft(X - 3)) / 6),
        (lambda x: x.clamp_min(0.5), _soft(X - 0.5) + 0.5),
        (lambda x: x.clamp(max=0.5), 0.5 - _soft(0.5 - X)),
        (lambda x: x.clamp(torch.tensor(0.0), torch.tensor(6.0)), _soft(X) - _soft(X - 6)),
        (lambda x: torch.maximum(x, torch.zeros_like(x)), _soft(X)),
        (lambda x: torch.max(x, torch.ones_like(x)), 1 + _soft(X - 1)),
        (lambda x: torch.minimum(x, torch.ones_like(x)), X - _soft(X - 1)),
        (lambda x: torch.min(x, torch.ones_like(x)), X - _soft(X - 1)),
        (lambda x: x.max(), X.max()),
        (torch.abs, _soft(X) + _soft(-X)),
        (nn.Threshold(0.0, 0.0, inplace=True), _soft(X)),
        (nn.ELU(0.5), _soft(X) + 0.5 * torch.expm1(-_soft(-X))),
        (nn.SELU(), SCALE * (_soft(X) + ALPHA * torch.expm1(-_soft(-X)))),
        (nn.SELU(inplace=True), SCALE * (_soft(X) + ALPHA * torch.expm1(-_soft(-X)))),
        (nn.RReLU(0.1, 0.3).eval(), 0.2 * X + 0.8 * _soft(X)),
        (nn.Softshrink(0.5), _soft(X - 0.5) - _soft(-X - 0.5)),
        (torch.tanh, torch.tanh(X)),
        (lambda x: F.max_pool1d(x[None], 3)[0], F.max_pool1d(X[None], 3)[0]),
    ],
)
def test_piecewise_linear_activations_become_softplus_and_nothing_else_changes(
    call: Callable[[Tensor], Tensor], expected: Tensor
) -> None:
    with smooth(BETA):
        torch.testing.assert_close(call(X.clone()), expected)


def test_large_beta_gives_back_the_network() -> None:
    net = Functional()
    model, x = upi.Classifier(net), images(4)
    torch.testing.assert_close(model.surrogate(1e6)(x), net(x), rtol=1e-4, atol=1e-5)
    assert (model.surrogate(1.0)(x) - net(x)).abs().max() > 1e-3


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored_also_after_an_exception(fails: bool) -> None:
    net = Functional()
    model, x = upi.Classifier(net), images(4)
    before, calls = net(x), (F.relu, torch.relu, Tensor.relu_)
    modules = [type(module) for module in net.modules()]
    if fails:
        with pytest.raises(RuntimeError):
            model.surrogate(1.0)(x[:, :, :3])
    else:
        model.surrogate(1.0)(x)
    assert torch.equal(model(x), before)
    assert (F.relu, torch.relu, Tensor.relu_) == calls
    assert [type(module) for module in net.modules()] == modules


def test_clamps_outside_the_network_are_left_alone(relu_net: nn.Module) -> None:
    x = images(2)
    expected = torch.tensor(-1.0).clamp(min=0)

    def clamped(model: upi.core.types.Network, x: Tensor, target: Tensor) -> Tensor:
        model(x)
        return torch.full_like(x[:, 0], -1.0).clamp(min=0)

    assert bool((clamped(upi.Classifier(relu_net).surrogate(1.0), x, x) == expected).all())


def test_the_second_derivative_of_a_relu_network_is_the_surrogates(relu_net: nn.Module) -> None:
    model, x = upi.Classifier(relu_net), images(2)
    target = model.predict(x)

    def second(looked_through: upi.core.types.Network) -> Tensor:
        point = x.clone().requires_grad_()
        maps = upi.saliency.Gradient()(looked_through, point, target)
        (result,) = torch.autograd.grad(maps.square().sum(), point)
        return result

    assert second(model).abs().max() == 0
    assert second(model.surrogate(10.0)).abs().max() > 0
    assert second(model).abs().max() == 0


def test_attention_can_be_differentiated_twice_through_the_surrogate() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = x[:, 0, None]
            return F.scaled_dot_product_attention(rows, rows, rows).sum((1, 2))

    model, point = upi.Classifier(Attention()), images(2).requires_grad_()
    maps = upi.saliency.Gradient()(model.surrogate(None), point, torch.tensor([0, 1]))
    (second,) = torch.autograd.grad(maps.square().sum(), point)
    assert second.abs().max() > 0


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_sharpness_must_be_positive(relu_net: nn.Module, beta: float) -> None:
    with pytest.raises(ConfigError, match="sharpness must be above 0"):
        upi.Classifier(relu_net).surrogate(beta)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, None, 0), (3, 2, 1), (3, 1, 1), ((2, 3), (1, 2), (0, 1))]
)
def test_max_pooling_becomes_a_weighted_mean(kernel: Any, stride: Any, padding: Any) -> None:
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)).double()
    plain = F.max_pool2d(x, kernel, stride, padding)
    with smooth(2e5):
        sharp = nn.MaxPool2d(kernel, stride, padding)(x)
    with smooth(2.0):
        soft = F.max_pool2d(x, kernel, stride, padding)
    torch.testing.assert_close(sharp, plain, rtol=0, atol=1e-4)
    assert bool((soft < plain - 1e-6).any())
    assert bool((soft <= plain + 1e-12).all())


def test_a_window_of_equal_pixels_keeps_its_value() -> None:
    x = torch.full((1, 1, 4, 4), 0.7)
    with smooth(20.0):
        torch.testing.assert_close(F.max_pool2d(x, 3, 1, 1), x)


def test_pooling_with_indices_is_left_alone() -> None:
    x = torch.rand(1, 1, 4, 4)
    with smooth(20.0):
        values, index = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(values, F.max_pool2d(x, 2))
    assert index.dtype == torch.int64


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d(3, 3, ceil_mode=True),
        nn.AdaptiveMaxPool2d(2),
        nn.AdaptiveMaxPool2d((3, 1)),
        nn.AdaptiveMaxPool2d((None, 2)),
    ],
    ids=str,
)
def test_every_max_pooling_tends_to_its_own_values(pool: nn.Module) -> None:
    x = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = pool(x)
    with smooth(4000.0):
        close = pool(x)
    assert close.shape == exact.shape
    torch.testing.assert_close(close, exact, rtol=0, atol=1e-3)
    with smooth(4.0):
        assert float((pool(x) - exact).abs().max()) > 1e-2


def test_a_maximum_over_an_image_is_smooth_and_other_maxima_are_not_touched() -> None:
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with smooth(4000.0):
        torch.testing.assert_close(x.amax((2, 3)), torch.amax(x, (-1, -2)), rtol=0, atol=1e-3)
        assert x.amax((2, 3), keepdim=True).shape == (2, 3, 1, 1)
    with smooth(4.0):
        assert not torch.equal(x.amax((2, 3)), x.flatten(2).max(-1).values)
        assert torch.equal(x.amax(1), x.max(1).values)
