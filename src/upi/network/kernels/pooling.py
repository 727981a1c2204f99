"""Max-pooling smoothed to a softmax-weighted mean of each window, with both derivatives in closed form.

For a window x, p = softmax(t x) and y = sum p x, the gradient is w_k = p_k (1 + t (x_k - y)); with
h flowing back into w, its derivative is t (h w + h p - w sum(h p) - p sum(h w)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from upi.network.kernels.convolution import Pair


@dataclass(frozen=True)
class Windows:
    """Where the windows of a pooling lie in images (N, C, H, W), padding included."""

    size: Pair
    stride: Pair
    image: Pair

    def _places(self) -> list[tuple[slice, slice]]:
        down, beside = (
            (n - k) // s * s + 1 for n, k, s in zip(self.image, self.size, self.stride, strict=True)
        )
        return [
            (slice(i, i + down, self.stride[0]), slice(j, j + beside, self.stride[1]))
            for i in range(self.size[0])
            for j in range(self.size[1])
        ]

    def gather(self, x: Tensor) -> Tensor:
        """Windows (K, N, C, h, w) of images (N, C, H, W)."""
        return torch.stack([x[:, :, rows, columns] for rows, columns in self._places()])

    def scatter(self, parts: Tensor) -> Tensor:
        """The adjoint of ``gather``."""
        shape = (*parts.shape[1:3], *self.image)
        tiled = self.size == self.stride and all(
            n % k == 0 for n, k in zip(self.image, self.size, strict=True)
        )
        out = parts.new_empty(shape) if tiled else parts.new_zeros(shape)
        for part, (rows, columns) in zip(parts, self._places(), strict=True):
            if tiled:
                out[:, :, rows, columns] = part
            else:
                out[:, :, rows, columns] += part
        return out


class _Scatter(Function):
    @staticmethod
    def forward(ctx: Any, parts: Tensor, where: Windows) -> Tensor:
        ctx.where = where
        return where.scatter(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.where.gather(grad), None


class _SoftPool(Function):
    """x to (y, w): see the module's formulas; w is an output, as the slope of softplus is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sharpness: float, where: Windows) -> tuple[Tensor, Tensor]:
        window = where.gather(x)
        share = torch.softmax(sharpness * window, 0)
        mean = (share * window).sum(0)
        weight = torch.addcmul(share, share, window.sub_(mean), value=sharpness)
        ctx.sharpness, ctx.where = sharpness, where
        ctx.save_for_backward(share, weight)
        ctx.set_materialize_grads(False)
        return mean, weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, bend: Tensor | None) -> tuple[Tensor | None, None, None]:
        share, weight = ctx.saved_tensors
        flow = None if grad is None else weight * grad
        if bend is not None:
            turn = weight * (bend - (bend * share).sum(0)) + share * (bend - (bend * weight).sum(0))
            flow = ctx.sharpness * turn if flow is None else torch.add(flow, turn, alpha=ctx.sharpness)
        return (None if flow is None else _Scatter.apply(flow, ctx.where)), None, None


def windows(
    x: Tensor, size: Pair, stride: Pair, padding: Pair, *, sharpness: float
) -> tuple[Tensor, Windows]:
    """Images with a padding that has no weight, and where the windows lie in them."""
    (rows, columns), nothing = padding, -(torch.finfo(x.dtype).max ** 0.5)
    if rows or columns:
        x = F.pad(x, (columns, columns, rows, rows), value=nothing)
    return x, Windows(size, stride, (x.shape[2], x.shape[3]))


def soft_max_pool2d(x: Tensor, where: Windows, *, sharpness: float) -> Tensor:
    """Softmax(sharpness * window)-weighted mean of each window of (N, C, H, W)."""
    out: Tensor = _SoftPool.apply(x, sharpness, where)[0]
    return out
