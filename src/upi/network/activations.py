"""Softplus forms of the piecewise-linear activations, and of what else has kinks.

ReLU, its relatives, clamps, maxima of two tensors, absolute values, and max-pooling; with autograd's own
derivatives (``Smooth``, the reference) and with derivatives written for being differentiated twice
(``Fast``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.network import kernels
from upi.network.kernels.convolution import pair

#: Constants of SELU (Klambauer et al. 2017).
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
#: Sharpness of max-pooling as a share of that of the activations.
POOLING = 0.5


def _number(bound: Any) -> Any:
    """A limit as a number, where it is one number in a tensor."""
    return float(bound) if isinstance(bound, Tensor) and bound.numel() == 1 else bound


def _is_zero(bound: Any) -> bool:
    return isinstance(bound, (int, float)) and bound == 0


#: How far below every value padding lies, in units of 1 / sharpness: its weight is exp(-40).
LEVELS = 40.0


def _cells(side: int, count: int) -> list[tuple[int, int]]:
    """Where the windows of an adaptive pooling begin and end."""
    return [(k * side // count, -(-(k + 1) * side // count)) for k in range(count)]


class Smooth:
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

    def elu(
        self,
        x: Tensor,
        alpha: float = 1.0,
        scale: float = 1.0,
        input_scale: float = 1.0,
        inplace: bool = False,
    ) -> Tensor:
        source = x.clone() if inplace else x
        below = alpha * torch.expm1(-input_scale * self.relu(-source))
        out = scale * (self.relu(source) + below)
        return x.copy_(out) if inplace else out

    def selu(self, x: Tensor, inplace: bool = False) -> Tensor:
        return self.elu(x, SELU_ALPHA, SELU_SCALE, 1.0, inplace)

    def rrelu(
        self,
        x: Tensor,
        lower: float = 1 / 8,
        upper: float = 1 / 3,
        training: bool = False,
        inplace: bool = False,
    ) -> Tensor:
        return self.leaky_relu(x, (lower + upper) / 2, inplace)  # what it is in eval mode

    def softshrink(self, x: Tensor, lambd: float = 0.5) -> Tensor:
        return self.relu(x - lambd) - self.relu(-x - lambd)

    def abs(self, x: Tensor) -> Tensor:
        return self.relu(x) + self.relu(-x)

    def maximum(self, x: Tensor, other: Tensor) -> Tensor:
        return other + self.relu(x - other)

    def minimum(self, x: Tensor, other: Tensor) -> Tensor:
        return x - self.relu(x - other)

    def max(self, x: Tensor, *args: Any, **named: Any) -> Any:
        pair = args[0] if len(args) == 1 and not named else named.get("other")
        return self.maximum(x, pair) if isinstance(pair, Tensor) else torch.max(x, *args, **named)

    def min(self, x: Tensor, *args: Any, **named: Any) -> Any:
        pair = args[0] if len(args) == 1 and not named else named.get("other")
        return self.minimum(x, pair) if isinstance(pair, Tensor) else torch.min(x, *args, **named)

    def clamp(self, x: Tensor, min: Any = None, max: Any = None) -> Tensor:
        min, max = _number(min), _number(max)
        if isinstance(min, (int, float)) and isinstance(max, (int, float)):
            return self.hardtanh(x, min, max)
        if max is None:
            return self.clamp_min(x, min)
        return self.clamp_max(x, max) if min is None else torch.clamp(x, min, max)

    def clamp_min(self, x: Tensor, min: Any) -> Tensor:
        min = _number(min)
        if _is_zero(min):
            return self.relu(x)
        return self.relu(x - min) + min if isinstance(min, (int, float)) else self.maximum(x, min)

    def clamp_max(self, x: Tensor, max: Any) -> Tensor:
        max = _number(max)
        return max - self.relu(max - x) if isinstance(max, (int, float)) else self.minimum(x, max)

    def clamp_(self, x: Tensor, min: Any = None, max: Any = None) -> Tensor:
        return x.copy_(self.clamp(x.clone(), min, max))

    def clamp_min_(self, x: Tensor, min: Any) -> Tensor:
        return x.copy_(self.clamp_min(x.clone(), min))

    def hardtanh_(self, x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
        return self.hardtanh(x, min_val, max_val, inplace=True)

    def elu_(self, x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
        return self.elu(x, alpha, scale, input_scale, inplace=True)

    def selu_(self, x: Tensor) -> Tensor:
        return self.selu(x, inplace=True)

    def threshold_(self, x: Tensor, threshold: float, value: float) -> Tensor:
        return self.threshold(x, threshold, value, inplace=True)

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
        if return_indices or x.ndim != 4 or pair(dilation) != (1, 1):
            return F.max_pool2d(  # type: ignore[call-overload,unused-ignore]
                x, kernel_size, stride, padding, dilation, ceil_mode, return_indices
            )
        size, step, edge = pair(kernel_size), pair(stride or kernel_size), pair(padding)
        if ceil_mode:
            x, edge = self._extended(x, size, step, edge), (0, 0)
        return self.pool(*kernels.windows(x, size, step, edge, sharpness=self.sharpness))

    def _extended(
        self, x: Tensor, size: tuple[int, int], step: tuple[int, int], edge: tuple[int, int]
    ) -> Tensor:
        """Images with so much below every value around them that a pooling that rounds up need not."""
        ends = []
        for side, k, s, p in zip(x.shape[2:], size, step, edge, strict=True):
            count = -(-(side + 2 * p - k) // s) + 1
            count -= (count - 1) * s >= side + p  # the last window must begin inside
            ends.append(max(0, (count - 1) * s + k - side - p))
        low = float(x.detach().min()) - LEVELS / self.sharpness
        return F.pad(x, (edge[1], ends[1], edge[0], ends[0]), value=low)

    def adaptive_max_pool2d(self, x: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        if return_indices or x.ndim != 4:
            return F.adaptive_max_pool2d(x, output_size, return_indices)  # type: ignore[call-overload]
        wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
        rows, columns = (side if n is None else int(n) for side, n in zip(x.shape[2:], wanted, strict=True))
        cells = [
            [self.amax(x[:, :, a:b, c:d], (2, 3)) for c, d in _cells(x.shape[3], columns)]
            for a, b in _cells(x.shape[2], rows)
        ]
        return torch.stack([torch.stack(line, -1) for line in cells], -2)

    def amax(self, x: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
        dims = tuple(d % x.ndim for d in ((dim,) if isinstance(dim, int) else dim))
        if x.ndim != 4 or sorted(dims) != [2, 3]:
            return torch.amax(x, dim, keepdim)
        flat = x.flatten(2)
        found = (torch.softmax(self.sharpness * flat, -1) * flat).sum(-1)
        return found[:, :, None, None] if keepdim else found

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
            F.adaptive_max_pool2d: self.adaptive_max_pool2d,
            **dict.fromkeys((torch.amax, Tensor.amax), self.amax),
            torch.max_pool2d: self.max_pool2d,
            F.elu: lambda x, alpha=1.0, inplace=False: self.elu(x, alpha, inplace=inplace),
            F.elu_: self.elu_,
            F.selu: self.selu,
            torch.selu: self.selu,
            **dict.fromkeys((torch.selu_, F.selu_), self.selu_),
            F.rrelu: self.rrelu,
            F.softshrink: self.softshrink,
            **dict.fromkeys((torch.abs, Tensor.abs, torch.absolute, Tensor.absolute), self.abs),
            **dict.fromkeys((torch.maximum, Tensor.maximum), self.maximum),
            **dict.fromkeys((torch.minimum, Tensor.minimum), self.minimum),
            **dict.fromkeys((torch.max, Tensor.max), self.max),
            **dict.fromkeys((torch.min, Tensor.min), self.min),
            **dict.fromkeys((torch.clamp_max, Tensor.clamp_max), self.clamp_max),
            F.threshold_: self.threshold_,  # type: ignore[attr-defined]
            F.hardtanh_: self.hardtanh_,
            F.leaky_relu_: self.leaky_relu_,
            **dict.fromkeys((torch.clamp, Tensor.clamp, torch.clip, Tensor.clip), self.clamp),
            **dict.fromkeys((torch.clamp_, Tensor.clamp_, torch.clip_, Tensor.clip_), self.clamp_),
            **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), self.clamp_min),
            **dict.fromkeys((torch.clamp_min_, Tensor.clamp_min_), self.clamp_min_),
        }


class Fast(Smooth):
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
