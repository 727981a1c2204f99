"""Batch norm folded into the convolution before it, found by watching the network run.

In eval mode batch norm is a fixed affine map: folded into the weights it changes outputs by
rounding only, and saves its forward pass and both derivatives. The module is never edited: the
folded weights live in a table that the function mode of ``upi.network.smooth`` looks weights up in.

Guards against folding where something else reads the convolution's output as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Folding:
    """Convolution weights that carry a batch norm; keys are the identities of tensors kept alive here.

    Attributes:
        weights: id of a weight to (that weight, folded weight, folded bias).
        norms: id of a running variance to that tensor: batch norms that are done already.
    """

    weights: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    norms: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class _Norm:
    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    eps: float


def _norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> _Norm | None:
    if running_mean is None or running_var is None:
        return None
    return _Norm(running_mean, running_var, weight, bias, training, eps)


def _affine(norm: _Norm) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a batch norm in eval mode, float64."""
    scale = (norm.variance.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


@dataclass
class _Seen:
    """One convolution while watching."""

    out: Tensor
    weight: Tensor
    bias: Tensor | None
    readers: int = 0
    norm: _Norm | None = None


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


class _Watch(TorchFunctionMode):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, _Seen] = {}
        self.uses: dict[int, int] = {}  # how often a weight or running variance came up

    def _count(self, tensor: Tensor) -> None:
        self.uses[id(tensor)] = self.uses.get(id(tensor), 0) + 1

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        read = [self.seen[id(t)] for t in _tensors([*args, *named.values()]) if id(t) in self.seen]
        norm = _norm(*args, **named) if func is F.batch_norm else None
        result = func(*args, **named)
        if any(True for _ in _tensors(result)):
            for convolution in read:
                convolution.readers += 1
                convolution.norm = norm
        if norm is not None:
            self._count(norm.variance)
        if func is torch.conv2d:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | named
            self.seen[id(result)] = _Seen(result, given["weight"], given.get("bias"))
            self._count(given["weight"])
        return result


@torch.no_grad()
def find_foldable(run: Callable[[], object]) -> Folding:
    """Watch one forward pass and fold every batch norm whose input is read by nothing else.

    Weights or batch norms that occur more than once are left alone.
    """
    with _Watch() as watch:
        run()
    found = Folding()
    for seen in watch.seen.values():
        norm = seen.norm
        if norm is None or seen.readers != 1 or norm.training:
            continue
        if watch.uses[id(seen.weight)] != 1 or watch.uses[id(norm.variance)] != 1:
            continue
        scale, shift = _affine(norm)
        weight = (seen.weight.double() * scale[:, None, None, None]).to(seen.weight)
        bias = shift if seen.bias is None else shift + scale * seen.bias.double()
        like = torch.channels_last if seen.weight.is_contiguous(memory_format=torch.channels_last) else None
        weight = weight.contiguous(memory_format=like) if like is not None else weight
        found.weights[id(seen.weight)] = seen.weight, weight, bias.to(seen.weight)
        found.norms[id(norm.variance)] = norm.variance
    return found


def batch_norm(folding: Folding, *args: Any, **named: Any) -> Tensor:
    """``torch.nn.functional.batch_norm``: nothing where it is folded, else scale and shift."""
    x: Tensor = args[0] if args else named["input"]
    norm = _norm(*args, **named)
    if norm is None or norm.training:
        return F.batch_norm(*args, **named)
    if id(norm.variance) in folding.norms:
        return x
    scale, shift = (part.to(x).view(1, -1, *[1] * (x.ndim - 2)) for part in _affine(norm))
    return x * scale + shift
