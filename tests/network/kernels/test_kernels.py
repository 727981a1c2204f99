"""Each kernel is its plain form, with right first and second derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from upi.core.errors import ModelError
from upi.network import kernels
from upi.network.activations import Smooth


def _points(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()


W = 0.3 * torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
B = torch.linspace(-1, 1, 6, dtype=torch.float64)
MANY = W.flatten()[:, None, None, None].expand(-1, 4, 1, 1).repeat(14, 1, 1, 1)[:2400]
WIDE = (80, 80, 70, 70)
POOLS = {
    "tiled": ((2, 2), (2, 2), (0, 0)),
    "overlapping and padded": ((3, 3), (2, 2), (1, 1)),
    "with a rest": ((2, 2), (3, 3), (0, 0)),
    "of rows": ((2, 1), (2, 1), (0, 0)),
}
FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "softplus": (lambda x: kernels.softplus(x, 3.0), lambda x: F.softplus(x, 3.0)),
    # torch's softplus is x itself from beta x = 20 on unless told otherwise
    "sharp softplus": (lambda x: kernels.softplus(x, 50.0), lambda x: F.softplus(x, 50.0, threshold=500)),
    "clamp": (
        lambda x: kernels.hardtanh(x, -0.5, 0.7, 8.0),
        lambda x: -0.5 + F.softplus(x + 0.5, 8.0, threshold=500) - F.softplus(x - 0.7, 8.0, threshold=500),
    ),
    "pointwise convolution": (
        lambda x: kernels.conv2d(x, W[:, :, :1, :1], B),
        lambda x: F.conv2d(x, W[:, :, :1, :1], B),
    ),
    "depthwise": (
        lambda x: kernels.conv2d(x, W[:4, :1], None, padding=1, groups=4),
        lambda x: F.conv2d(x, W[:4, :1], None, padding=1, groups=4),
    ),
    "depthwise, strided, wide padding": (
        lambda x: kernels.conv2d(x, W[:4, :1], B[:4], 2, 2, groups=4),
        lambda x: F.conv2d(x, W[:4, :1], B[:4], 2, 2, groups=4),
    ),
    "depthwise, padded beyond the kernel": (
        lambda x: kernels.conv2d(x, W[:4, :1], None, padding=3, groups=4),
        lambda x: F.conv2d(x, W[:4, :1], None, padding=3, groups=4),
    ),
    "softplus in place": (
        lambda x: kernels.softplus(2 * x, 3.0, inplace=True),
        lambda x: F.softplus(2 * x, 3.0),
    ),
    "convolution": (lambda x: kernels.conv2d(x, W, B), lambda x: F.conv2d(x, W, B)),
    "strided": (
        lambda x: kernels.conv2d(x, W, None, 2, 1),
        lambda x: F.conv2d(x, W, None, 2, 1),
    ),
    "strided with a rest": (
        lambda x: kernels.conv2d(x, W, B, (3, 2), (0, 1)),
        lambda x: F.conv2d(x, W, B, (3, 2), (0, 1)),
    ),
    "dilated": (
        lambda x: kernels.conv2d(x, W, B, dilation=2, padding=1),
        lambda x: F.conv2d(x, W, B, dilation=2, padding=1),
    ),
    "grouped": (
        lambda x: kernels.conv2d(x, W[:, :2], B, groups=2),
        lambda x: F.conv2d(x, W[:, :2], B, groups=2),
    ),
    "named padding": (
        lambda x: kernels.conv2d(x, W, padding="same"),
        lambda x: F.conv2d(x, W, padding="same"),
    ),
    "silu": (kernels.silu, F.silu),
    # limits that do not see each other: the lower one is far below, the upper one among the points
    "far clamp": (
        lambda x: kernels.hardtanh(x, -12.3, 0.7, 8.0),
        lambda x: -12.3 + F.softplus(x + 12.3, 8.0, threshold=500) - F.softplus(x - 0.7, 8.0, threshold=500),
    ),
    "far clamp of more": (
        lambda x: kernels.hardtanh(x, -0.4, 12.6, 8.0),
        lambda x: -0.4 + F.softplus(x + 0.4, 8.0, threshold=500) - F.softplus(x - 12.6, 8.0, threshold=500),
    ),
    "large pointwise convolution": (
        lambda x: kernels.conv2d(F.pad(x, WIDE), W[:, :, :1, :1], B),
        lambda x: F.conv2d(F.pad(x, WIDE), W[:, :, :1, :1], B),
    ),
    "pointwise convolution of many channels": (
        lambda x: kernels.conv2d(x, MANY, None),
        lambda x: F.conv2d(x, MANY, None),
    ),
}


def _pool(name: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    size, stride, padding = POOLS[name]

    def quick(x: Tensor) -> Tensor:
        return kernels.soft_max_pool2d(
            *kernels.windows(x, size, stride, padding, sharpness=2.0), sharpness=2.0
        )

    def plain(x: Tensor) -> Tensor:
        out: Tensor = Smooth(4.0).max_pool2d(x, size, stride, padding)
        return out

    return quick, plain


FORMS |= {f"pooling, {name}": _pool(name) for name in POOLS}


@pytest.mark.parametrize("name", FORMS)
def test_values_and_both_derivatives_are_those_of_the_plain_form(name: str) -> None:
    quick, plain = FORMS[name]
    x, weight = _points(2, 4, 8, 7), None
    found = []
    for form in (quick, plain):
        value = form(x)
        weight = _points(*value.shape, seed=2).detach()
        (slope,) = torch.autograd.grad((value * weight).sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad((slope * x).square().sum(), x)
        found.append((value.detach(), slope.detach(), bend))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


#: Without derivatives of their own, or too large for differences.
SKIPPED = ("named padding", "large pointwise convolution", "pointwise convolution of many channels")


@pytest.mark.parametrize("name", [name for name in FORMS if name not in SKIPPED])
def test_derivatives_agree_with_differences(name: str) -> None:
    quick, _ = FORMS[name]
    x = _points(1, 4, 6, 5)
    assert torch.autograd.gradcheck(quick, (x,))
    assert torch.autograd.gradgradcheck(quick, (x,))


def test_a_third_derivative_of_silu_is_right() -> None:
    x, found = _points(2, 2, 8, 7), []
    for form in FORMS["silu"]:
        value = form(x)
        for seed in (2, 3):
            (value,) = torch.autograd.grad(
                (value * _points(*value.shape, seed=seed)).sum(), x, create_graph=True
            )
        found.append(torch.autograd.grad(value.square().sum(), x)[0])
    torch.testing.assert_close(found[0], found[1])


def test_a_third_derivative_of_softplus_is_right() -> None:
    x = _points(5)

    def slope(x: Tensor) -> Tensor:
        (out,) = torch.autograd.grad(kernels.softplus(x, 3.0).square().sum(), x, create_graph=True)
        return out

    assert torch.autograd.gradgradcheck(slope, (x,))


def test_softplus_in_place_writes_into_its_argument() -> None:
    x = _points(3, 4)
    y = 2 * x
    expected = F.softplus(y.detach(), 5.0)
    assert kernels.softplus(y, 5.0, inplace=True) is y
    torch.testing.assert_close(y.detach(), expected)
    plain = torch.randn(3, generator=torch.Generator().manual_seed(0))
    expected = F.softplus(plain, 5.0)
    assert kernels.softplus(plain, 5.0, inplace=True) is plain
    torch.testing.assert_close(plain, expected)


def test_softplus_in_place_on_a_part_of_a_tensor() -> None:
    def through(form: Callable[[Tensor], Tensor]) -> Tensor:
        x = _points(3, 4)
        y = 2 * x
        form(y[:, 1:3])
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.square().sum(), x)
        return bend

    quick = through(lambda part: kernels.softplus(part, 5.0, inplace=True))
    torch.testing.assert_close(quick, through(lambda part: part.copy_(F.softplus(part.clone(), 5.0))))


def test_trained_weights_keep_their_gradient() -> None:
    weight = W.clone().requires_grad_()
    (slope,) = torch.autograd.grad(kernels.conv2d(_points(1, 4, 6, 6), weight).sum(), weight)
    assert bool(slope.ne(0).all())


def test_padding_has_no_weight_however_low_the_activations_are() -> None:
    x = torch.full((1, 1, 3, 3), -1e4)
    pooled = kernels.soft_max_pool2d(
        *kernels.windows(x, (3, 3), (2, 2), (1, 1), sharpness=10.0), sharpness=10.0
    )
    torch.testing.assert_close(pooled, torch.full((1, 1, 2, 2), -1e4))


def test_derivatives_have_no_denormal_tails() -> None:
    """Denormal numbers make every later operation on a CPU many times slower."""
    x = torch.linspace(-40, 40, 4001).requires_grad_()
    for form in (lambda x: kernels.softplus(x, 20.0), lambda x: kernels.hardtanh(x, 0.0, 6.0, 20.0)):
        (slope,) = torch.autograd.grad(form(x).sum(), x, create_graph=True)  # type: ignore[no-untyped-call,unused-ignore]
        (bend,) = torch.autograd.grad(slope.sum(), x)
        for values in (slope.detach(), slope.detach() ** 3, bend):
            tiny = torch.finfo(torch.float32).tiny
            assert not ((values != 0) & (values.abs() < tiny)).any()


def test_a_third_derivative_of_a_clamp_is_refused_not_wrong() -> None:
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kernels.hardtanh(x, 0.0, 6.0, 4.0).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    with pytest.raises(ModelError, match="no third derivative: use Classifier"):
        torch.autograd.grad(bend.sum(), x)


def test_an_activation_in_place_may_follow_a_pointwise_convolution() -> None:
    x = torch.rand(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, 3, 1, 1, dtype=torch.float64)
    found = torch.nn.functional.hardswish(kernels.conv2d(x, weight), inplace=True)
    torch.testing.assert_close(found, torch.nn.functional.hardswish(torch.conv2d(x, weight)))
    (own,) = torch.autograd.grad(found.square().sum(), x)
    (expected,) = torch.autograd.grad(
        torch.nn.functional.hardswish(torch.conv2d(x, weight)).square().sum(), x
    )
    torch.testing.assert_close(own, expected)
