"""Softplus whose first derivative is kept, so that both derivatives cost multiplications only."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

#: Above beta * x = 20 softplus is x, as in ``torch.nn.functional.softplus``.
THRESHOLD = 20.0


class _Softplus(Function):
    """x to (softplus(x), s) with s = sigmoid(beta x), the derivative.

    s is an output: the first derivative is then the plain product grad * s, which autograd can
    differentiate again, and what flows back into s is the second derivative beta s (1 - s).
    Neither the input nor the output has to be kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float, inplace: bool) -> tuple[Tensor, Tensor]:
        slope = torch.ops.aten.softplus_backward(x.new_ones(()).expand_as(x), x, beta, THRESHOLD)
        if inplace:
            torch.ops.aten.softplus.out(x, beta, THRESHOLD, out=x)
            ctx.mark_dirty(x)
        ctx.beta = beta
        ctx.save_for_backward(slope)
        ctx.set_materialize_grads(False)
        return x if inplace else F.softplus(x, beta, THRESHOLD), slope

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, bend: Tensor | None) -> tuple[Tensor | None, None, None]:
        (slope,) = ctx.saved_tensors
        if bend is None:
            return (None if grad is None else grad * slope), None, None
        if torch.is_grad_enabled():  # a third derivative is wanted: say it in terms autograd knows
            second = ctx.beta * bend * slope * (1 - slope)
            return (second if grad is None else second + grad * slope), None, None
        second = torch.ops.aten.sigmoid_backward(bend, slope).mul_(ctx.beta)
        return (second if grad is None else second.addcmul_(grad, slope)), None, None


def softplus(x: Tensor, beta: float, *, inplace: bool = False) -> Tensor:
    """log(1 + exp(beta * x)) / beta of any tensor; with ``inplace`` the values of ``x`` are replaced."""
    if inplace and x._is_view():  # autograd takes no second output where a view is written to
        return x.copy_(softplus(x.clone(), beta))
    if x.requires_grad and torch.is_grad_enabled():
        out: Tensor = _Softplus.apply(x, beta, inplace)[0]
        return out
    if inplace:
        torch.ops.aten.softplus.out(x, beta, THRESHOLD, out=x)
        return x
    return F.softplus(x, beta, THRESHOLD)
