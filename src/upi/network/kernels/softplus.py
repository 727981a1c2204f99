"""Softplus whose first derivative is kept, so that both derivatives cost multiplications only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from upi.core.errors import ModelError
from upi.network.kernels.fused import FAR_CLAMP, SLOPE, SOFTPLUS, SOFTPLUS_BACK

#: |beta x| beyond which the sigmoid stays as it is, 1.4e-11 or 4e-18 from 0 or 1. Left to themselves its
#: tails, and the products of several of them, become denormal numbers, with which every later operation
#: on a CPU is many times slower (docs/performance.md).
TAIL = {torch.float64: 40.0}
TAIL_OF_OTHERS = 25.0


def _tail(x: Tensor) -> float:
    return TAIL.get(x.dtype, TAIL_OF_OTHERS)


def _value_(low: Tensor, beta: float) -> Tensor:
    """log(1 + exp(beta x)) / beta in place of an ``x`` that is at least -tail / beta; above it x itself."""
    found: Tensor = torch.ops.aten.softplus.out(low, beta, _tail(low), out=low)
    return found


def _value(x: Tensor, beta: float) -> Tensor:
    """The same of any ``x``, in a new tensor."""
    return _value_(x.clamp_min(-_tail(x) / beta), beta)


def _both(x: Tensor, beta: float, *, inplace: bool = False) -> tuple[Tensor, Tensor]:
    """Softplus, in place of ``x`` or new, and its derivative sigmoid(beta x) without denormal tails.

    On a GPU, where denormal numbers cost nothing, tails are as they come.
    """
    fused = (SLOPE if inplace else SOFTPLUS).of(x, beta=beta)
    if fused is not None and inplace:
        return torch.ops.aten.softplus.out(x, beta, _tail(x), out=x), fused[0]
    if fused is not None:
        return fused[0], fused[1]
    edge = -_tail(x) / beta
    low = x.clamp_min_(edge) if inplace else x.clamp_min(edge)
    slope = (low * beta).sigmoid_()
    return _value_(low, beta), slope


class _Softplus(Function):
    """x to (softplus(x), s) with s = sigmoid(beta x), the derivative.

    s is an output: the first derivative is then the plain product grad * s, which autograd can
    differentiate again, and what flows back into s is the second derivative beta s (1 - s).
    Neither the input nor the output has to be kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float, inplace: bool) -> tuple[Tensor, Tensor]:
        out, slope = _both(x, beta, inplace=inplace)
        if inplace:
            ctx.mark_dirty(x)
        ctx.beta = beta
        ctx.save_for_backward(slope)
        ctx.set_materialize_grads(False)
        return out, slope

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, bend: Tensor | None) -> tuple[Tensor | None, None, None]:
        (slope,) = ctx.saved_tensors
        if bend is None:
            return (None if grad is None else grad * slope), None, None
        if torch.is_grad_enabled():  # a third derivative is wanted: say it in terms autograd knows
            second = ctx.beta * bend * slope * (1 - slope)
            return (second if grad is None else second + grad * slope), None, None
        fused = None if grad is None else SOFTPLUS_BACK.of(grad, bend, slope, beta=ctx.beta)
        if fused is not None:
            return fused[0], None, None
        second = torch.ops.aten.sigmoid_backward(bend, slope).mul_(ctx.beta)
        return (second if grad is None else second.addcmul_(grad, slope)), None, None


def _clamp(x: Tensor, low: float, high: float, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Value, slope and bend of a smooth clamp, from a softplus at each limit."""
    out, first = _both(x - low, beta)
    beyond, second = _both(x - high, beta)
    out.sub_(beyond)
    if low:
        out.add_(low)
    bend = torch.addcmul(first, first, first, value=-1).sub_(second).addcmul_(second, second)
    return out, first.sub_(second), bend


def _far_clamp(x: Tensor, low: float, high: float, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same where the limits do not see each other: with the middle c, half the width w and
    t = w - |x - c|, the value is c + sign(x - c) (w - softplus(t)): one softplus, at the nearer limit."""
    middle, half = (high + low) / 2, (high - low) / 2
    fused = FAR_CLAMP.of(x, middle=middle, half=half, beta=beta)
    if fused is not None:
        return fused[0], fused[1], fused[2]
    off = x - middle
    inner, slope = _both(off.abs().neg_().add_(half), beta, inplace=True)
    out = inner.neg_().add_(half).copysign_(off).add_(middle)
    bend = torch.addcmul(slope, slope, slope, value=-1).copysign_(off.neg_())
    return out, slope, bend


class _Hardtanh(Function):
    """x to (low + softplus(x - low) - softplus(x - high), s, b): the value and its two derivatives.

    With p = sigmoid(beta (x - low)) and q = sigmoid(beta (x - high)), s = p - q and b = p (1 - p) -
    q (1 - q), the second derivative without its factor beta. Both are outputs, so that autograd can
    differentiate the products they take part in, and a third derivative, which nothing here knows, is
    noticed instead of being wrong.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float, beta: float) -> tuple[Tensor, Tensor, Tensor]:
        out, slope, bend = (_clamp if (high - low) * beta < 2 * _tail(x) else _far_clamp)(x, low, high, beta)
        ctx.beta = beta
        ctx.save_for_backward(slope, bend)
        ctx.set_materialize_grads(False)
        return out, slope, bend

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, turn: Tensor | None, third: Tensor | None
    ) -> tuple[Tensor | None, None, None, None]:
        if third is not None:
            raise ModelError(
                "the quick form of a smooth clamp has no third derivative: use Classifier(..., fast=False)"
            )
        slope, bend = ctx.saved_tensors
        found = None if grad is None else grad * slope
        if turn is not None:
            found = ctx.beta * turn * bend if found is None else found.addcmul(turn, bend, value=ctx.beta)
        return found, None, None, None


def hardtanh(x: Tensor, low: float, high: float, beta: float) -> Tensor:
    """Smooth clamp to [low, high]: low + softplus(x - low) - softplus(x - high), of any tensor.

    Twice differentiable; a third derivative is refused.
    """
    if x.requires_grad and torch.is_grad_enabled():
        out: Tensor = _Hardtanh.apply(x, low, high, beta)[0]
        return out
    return low + _value(x - low, beta) - _value(x - high, beta)


def softplus(x: Tensor, beta: float, *, inplace: bool = False) -> Tensor:
    """log(1 + exp(beta * x)) / beta of any tensor; with ``inplace`` the values of ``x`` are replaced."""
    if inplace and x._is_view():  # autograd takes no second output where a view is written to
        return x.copy_(softplus(x.clone(), beta))
    if x.requires_grad and torch.is_grad_enabled():
        out: Tensor = _Softplus.apply(x, beta, inplace)[0]
        return out
    return _value_(x.clamp_min_(-_tail(x) / beta), beta) if inplace else _value(x, beta)
