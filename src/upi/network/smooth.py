"""Smooth stand-ins for piecewise-linear activations, inside a context that always restores.

A ReLU network is piecewise linear, so the map of its logit is piecewise constant and
the attack gradient is exactly zero almost everywhere. Inside ``smooth(beta)`` every
ReLU, as a module or as a function call, is computed as softplus(beta), and every max-pooling
as a softmax(beta / 2)-weighted mean of its window; the module itself is never touched.
Evaluation happens outside.

Two sets of forms exist: the plain ones here, which are the reference, and the same functions with
derivatives written for being differentiated twice (``upi.network.kernels``), which attacks use.

Softplus for the *attack gradient* follows Dombrowski et al. (NeurIPS 2019). Max-pooling makes
maps jump where another pixel of a window becomes the largest, which no derivative sees;
smoothing it as well makes UPI-Grad on VGG-16 clearly stronger (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from upi.core.errors import ConfigError
from upi.network import kernels
from upi.network.kernels.convolution import pair

#: Sharpness of max-pooling as a share of that of the activations.
POOLING = 0.5


def _is_zero(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        return bound.numel() == 1 and float(bound) == 0
    return isinstance(bound, (int, float)) and bound == 0


class _Smooth:
    """Softplus forms of the piecewise-linear activations, signatures as in ``torch``."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.sharpness = POOLING * beta

    def relu(self, x: Tensor, inplace: bool = False) -> Tensor:
        out = F.softplus(x.clone() if inplace else x, beta=self.beta)
        return x.copy_(out) if inplace else out

    def pool(self, x: Tensor, where: kernels.Windows) -> Tensor:
        window = where.gather(x)
        return (torch.softmax(self.sharpness * window, 0) * window).sum(0)

    def relu_(self, x: Tensor) -> Tensor:
        return self.relu(x, inplace=True)

    def relu6(self, x: Tensor, inplace: bool = False) -> Tensor:
        return self.hardtanh(x, 0.0, 6.0, inplace)

    def hardtanh(
        self, x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
    ) -> Tensor:
        source = x.clone() if inplace else x
        out = min_val + self.relu(source - min_val) - self.relu(source - max_val)
        return x.copy_(out) if inplace else out

    def leaky_relu(self, x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
        source = x.clone() if inplace else x
        out = negative_slope * source + (1 - negative_slope) * self.relu(source)
        return x.copy_(out) if inplace else out

    def prelu(self, x: Tensor, weight: Tensor) -> Tensor:
        slope = weight.reshape(-1, *[1] * (x.ndim - 2)) if weight.numel() > 1 else weight
        return slope * x + (1 - slope) * self.relu(x)

    def hardsigmoid(self, x: Tensor, inplace: bool = False) -> Tensor:
        source = x.clone() if inplace else x
        out = self.relu6(source + 3) / 6
        return x.copy_(out) if inplace else out

    def hardswish(self, x: Tensor, inplace: bool = False) -> Tensor:
        source = x.clone() if inplace else x
        out = source * self.relu6(source + 3) / 6
        return x.copy_(out) if inplace else out

    def clamp(self, x: Tensor, min: Any = None, max: Any = None) -> Tensor:
        if isinstance(min, (int, float)) and isinstance(max, (int, float)):
            return self.hardtanh(x, min, max)
        return self.relu(x) if max is None and _is_zero(min) else torch.clamp(x, min, max)

    def clamp_min(self, x: Tensor, min: Any) -> Tensor:
        return self.relu(x) if _is_zero(min) else torch.clamp_min(x, min)

    def clamp_(self, x: Tensor, min: Any = None, max: Any = None) -> Tensor:
        return x.copy_(self.clamp(x.clone(), min, max))

    def clamp_min_(self, x: Tensor, min: Any) -> Tensor:
        return x.copy_(self.clamp_min(x.clone(), min))

    def hardtanh_(self, x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
        return self.hardtanh(x, min_val, max_val, inplace=True)

    def leaky_relu_(self, x: Tensor, negative_slope: float = 0.01) -> Tensor:
        return self.leaky_relu(x, negative_slope, inplace=True)

    def threshold(self, x: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
        if threshold == 0 and value == 0:
            return self.relu(x, inplace)
        return F.threshold(x, threshold, value, inplace)

    def max_pool2d(
        self,
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if return_indices or x.ndim != 4 or ceil_mode or pair(dilation) != (1, 1):
            return F.max_pool2d(  # type: ignore[call-overload,unused-ignore]
                x, kernel_size, stride, padding, dilation, ceil_mode, return_indices
            )
        size, step, edge = pair(kernel_size), pair(stride or kernel_size), pair(padding)
        return self.pool(*kernels.windows(x, size, step, edge, sharpness=self.sharpness))

    def table(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        return {
            F.relu: self.relu,
            torch.relu: self.relu,
            Tensor.relu: self.relu,
            torch.relu_: self.relu_,
            Tensor.relu_: self.relu_,
            F.relu6: self.relu6,
            F.hardtanh: self.hardtanh,
            F.leaky_relu: self.leaky_relu,
            torch.prelu: self.prelu,
            Tensor.prelu: self.prelu,
            F.hardsigmoid: self.hardsigmoid,
            F.hardswish: self.hardswish,
            F.threshold: self.threshold,
            F.max_pool2d: self.max_pool2d,
            torch.max_pool2d: self.max_pool2d,
            F.hardtanh_: self.hardtanh_,
            F.leaky_relu_: self.leaky_relu_,
            **dict.fromkeys((torch.clamp, Tensor.clamp, torch.clip, Tensor.clip), self.clamp),
            **dict.fromkeys((torch.clamp_, Tensor.clamp_, torch.clip_, Tensor.clip_), self.clamp_),
            **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), self.clamp_min),
            **dict.fromkeys((torch.clamp_min_, Tensor.clamp_min_), self.clamp_min_),
        }


class _Fast(_Smooth):
    """The same functions through ``upi.network.kernels``."""

    def relu(self, x: Tensor, inplace: bool = False) -> Tensor:
        return kernels.softplus(x, self.beta, inplace=inplace)

    def hardtanh(
        self, x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
    ) -> Tensor:
        out = kernels.hardtanh(x.clone() if inplace else x, min_val, max_val, self.beta)
        return x.copy_(out) if inplace else out

    def pool(self, x: Tensor, where: kernels.Windows) -> Tensor:
        return kernels.soft_max_pool2d(x, where, sharpness=self.sharpness)


Table = dict[Callable[..., Any], Callable[..., Any]]


def _frozen_forms(folding: kernels.Folding) -> Table:
    """Operations that need no surrogate, for frozen weights: convolution and batch norm."""

    def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **named: Any) -> Tensor:
        _, weight, bias = folding.weights.get(id(weight), (weight, weight, bias))
        return kernels.conv2d(x, weight, bias, *args, **named)

    return {torch.conv2d: conv2d, F.batch_norm: partial(kernels.batch_norm, folding)}


class _Substitute(TorchFunctionMode):  # type: ignore[misc,unused-ignore]
    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        smooth_form = self.table.get(func)
        if smooth_form is None:
            return func(*args, **named)
        if not args:
            args = (named.pop("input"),)
        return (smooth_form if args[0].is_floating_point() else func)(*args, **named)


def check_beta(beta: float | None) -> None:
    """Raise ``ConfigError`` unless ``beta`` is None or above zero."""
    if beta is not None and not beta > 0:
        raise ConfigError(f"the softplus sharpness must be above 0 (or None for no surrogate), got {beta!r}")


@contextmanager
def smooth(beta: float | None, *, folding: kernels.Folding | None = None) -> Iterator[None]:
    """Compute ReLU and its relatives, and max-pooling, smoothly inside this context.

    softplus_beta(x) = log(1 + exp(beta * x)) / beta tends to relu(x) as beta grows. A clamp
    at 0 counts as a ReLU. Attention runs on its plain kernel, because the fused ones have
    no second derivative. A ``Surrogate`` enters this context around the network's
    forward pass alone, so that clamps outside the network keep their meaning.

    Args:
        beta: Sharpness, above zero; None leaves the activations alone (and still
            selects the attention kernel that can be differentiated twice).
        folding: Run through ``upi.network.kernels``, for networks in eval mode with frozen weights, with
            these batch norms folded; None for the plain forms.

    Raises:
        ConfigError: ``beta`` is not above zero.
    """
    check_beta(beta)
    table: Table = {} if folding is None else _frozen_forms(folding)
    if beta is not None:
        table |= (_Smooth if folding is None else _Fast)(float(beta)).table()
    with sdpa_kernel(SDPBackend.MATH), _Substitute(table) if table else nullcontext():
        yield
