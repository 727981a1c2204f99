"""Smooth stand-ins for piecewise-linear activations, inside a context that always restores.

A ReLU network is piecewise linear, so the map of its logit is piecewise constant and
the attack gradient is exactly zero almost everywhere. Inside ``smooth(beta)`` every
ReLU, as a module or as a function call, is computed as softplus(beta), and every max-pooling
as a softmax(beta / 2)-weighted mean of its window; the module itself is never touched.
Evaluation happens outside.

Softplus for the *attack gradient* follows Dombrowski et al. (NeurIPS 2019). Max-pooling makes
maps jump where another pixel of a window becomes the largest, which no derivative sees;
smoothing it as well makes UPI-Grad on VGG-16 clearly stronger (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from upi.errors import ConfigError

#: Sharpness of max-pooling as a share of that of the activations.
POOLING = 0.5


def _is_zero(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        return bound.numel() == 1 and float(bound) == 0
    return isinstance(bound, (int, float)) and bound == 0


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))


class _Smooth:
    """Softplus forms of the piecewise-linear activations, signatures as in ``torch``."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def relu(self, x: Tensor, inplace: bool = False) -> Tensor:
        out = F.softplus(x.clone() if inplace else x, beta=self.beta)
        return x.copy_(out) if inplace else out

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
        if return_indices or x.ndim != 4 or ceil_mode or _pair(dilation) != (1, 1):
            return F.max_pool2d(  # type: ignore[call-overload,unused-ignore]
                x, kernel_size, stride, padding, dilation, ceil_mode, return_indices
            )
        (high, wide), (down, right) = _pair(kernel_size), _pair(stride or kernel_size)
        rows, columns = _pair(padding)
        if rows or columns:
            nothing = float(x.detach().amin()) - 100 / (POOLING * self.beta)  # weighs e^-100
            x = F.pad(x, (columns, columns, rows, rows), value=nothing)
        below, beside = (x.shape[2] - high) // down * down + 1, (x.shape[3] - wide) // right * right + 1
        places = [(i, j) for i in range(high) for j in range(wide)]
        window = torch.stack([x[:, :, i : i + below : down, j : j + beside : right] for i, j in places])
        return (torch.softmax(POOLING * self.beta * window, 0) * window).sum(0)

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


class _Substitute(TorchFunctionMode):  # type: ignore[misc,unused-ignore]
    def __init__(self, table: dict[Callable[..., Any], Callable[..., Any]]) -> None:
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
def smooth(beta: float | None) -> Iterator[None]:
    """Compute ReLU and its relatives, and max-pooling, smoothly inside this context.

    softplus_beta(x) = log(1 + exp(beta * x)) / beta tends to relu(x) as beta grows. A clamp
    at 0 counts as a ReLU. Attention runs on its plain kernel, because the fused ones have
    no second derivative. ``Classifier.smoothed`` enters this context around the network's
    forward pass alone, so that clamps outside the network keep their meaning.

    Args:
        beta: Sharpness, above zero; None leaves the activations alone (and still
            selects the attention kernel that can be differentiated twice).

    Raises:
        ConfigError: ``beta`` is not above zero.
    """
    check_beta(beta)
    with sdpa_kernel(SDPBackend.MATH):
        if beta is None:
            yield
        else:
            with _Substitute(_Smooth(float(beta)).table()):
                yield
