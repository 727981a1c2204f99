"""Convolution with frozen weights: its two derivatives are a transposed and a plain convolution.

Autograd's second derivative of a convolution also prepares the weights' and costs half again as
much; a convolution with frozen weights keeps nothing but the weights. On a CPU a 1 x 1 convolution is a
matrix product and the adjoint of a depthwise one a convolution with the turned kernel: torch's general
routes are 2 to 10 times slower there (docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Pair = tuple[int, int]

#: Multiplications an image below which a 1 x 1 convolution is quicker as a matrix product, and pixels from
#: which its adjoint is quicker as a convolution; two and one threads, 19 shapes of common networks.
SMALL, PLANE = 2**19, 28 * 28


@dataclass(frozen=True)
class _Geometry:
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    rest: Pair  # rows and columns at the end that no window reaches

    def pointwise(self, x: Tensor, weight: Tensor) -> bool:
        """Whether a 1 x 1 kernel sees every pixel once, on a CPU."""
        once = self.stride == (1, 1) and self.padding == (0, 0) and self.groups == 1
        return once and weight.shape[2:] == (1, 1) and x.device.type == "cpu"

    def turns(self, grad: Tensor, weight: Tensor) -> bool:
        """Whether the adjoint is a depthwise convolution with the turned kernel, on a CPU."""
        depthwise = self.groups == weight.shape[0] and weight.shape[1] == 1
        inside = all(p < k for p, k in zip(self.padding, weight.shape[2:], strict=True))
        plain = self.stride == (1, 1) and self.dilation == (1, 1) and inside
        return depthwise and plain and grad.device.type == "cpu"


def _small(x: Tensor, weight: Tensor) -> bool:
    """Whether a 1 x 1 convolution is quicker as a matrix product."""
    return x.is_contiguous() and weight.numel() * x.shape[2] * x.shape[3] < SMALL


def _mix(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """The matrix (O, I) applied to the channels of (N, I, H, W)."""
    flat, every = x.flatten(2), matrix.expand(len(x), -1, -1)
    out = torch.bmm(every, flat) if bias is None else torch.baddbmm(bias[:, None], every, flat)
    # no view for autograd: an activation in place may follow, which views made inside a Function forbid
    shaped: Tensor = torch.ops.aten._unsafe_view(out, [len(x), matrix.shape[0], *x.shape[2:]])
    return shaped


class _Convolve(Function):
    """The linear map x to w * x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: _Geometry) -> Tensor:
        ctx.weight, ctx.how = weight, how
        if how.pointwise(x, weight) and _small(x, weight):
            return _mix(x, weight[:, :, 0, 0], bias)
        return torch.conv2d(x, weight, bias, how.stride, how.padding, how.dilation, how.groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Transposed.apply(grad, ctx.weight, ctx.how), None, None, None


class _Transposed(Function):
    """Its adjoint."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, how: _Geometry) -> Tensor:
        ctx.weight, ctx.how = weight, how
        if how.pointwise(grad, weight):
            if _small(grad, weight):
                return _mix(grad, weight[:, :, 0, 0].T, None)
            if grad.shape[2] * grad.shape[3] >= PLANE:
                return torch.conv2d(grad, weight.transpose(0, 1))
        if how.turns(grad, weight):
            edges = tuple(k - 1 - p for k, p in zip(weight.shape[2:], how.padding, strict=True))
            return torch.conv2d(grad, weight.flip(2, 3), None, 1, edges, 1, how.groups)
        return torch.conv_transpose2d(
            grad, weight, None, how.stride, how.padding, how.rest, how.groups, how.dilation
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Convolve.apply(grad, ctx.weight, None, ctx.how), None, None


def pair(size: Any) -> Pair:
    """(rows, columns) from a number or two."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.conv2d``; the weights must not require a gradient.

    Goes through torch's own derivatives where weights are trained, padding is given by name, or
    autocast chooses the precision.
    """
    frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
    plain = isinstance(padding, str) or input.ndim != 4 or torch.is_autocast_enabled(input.device.type)
    if plain or not (frozen and input.requires_grad and torch.is_grad_enabled()):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    steps, edges, gaps = pair(stride), pair(padding), pair(dilation)
    sizes = zip(input.shape[2:], weight.shape[2:], steps, edges, gaps, strict=True)
    rows, columns = ((n + 2 * e - g * (k - 1) - 1) % s for n, k, s, e, g in sizes)
    out: Tensor = _Convolve.apply(input, weight, bias, _Geometry(steps, edges, gaps, groups, (rows, columns)))
    return out
