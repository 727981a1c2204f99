"""Smooth stand-ins for piecewise-linear activations, inside a context that always restores.

A ReLU network is piecewise linear, so the map of its logit is piecewise constant and
the attack gradient is exactly zero almost everywhere. Inside ``smooth(beta)`` every
ReLU, as a module or as a function call, is computed as softplus(beta), and every max-pooling
as a softmax(beta / 2)-weighted mean of its window (``upi.network.activations``); the module itself is never
touched. Evaluation happens outside.

Two sets of forms exist: the plain ones here, which are the reference, and the same functions with
derivatives written for being differentiated twice (``upi.network.kernels``), which attacks use.

Softplus for the *attack gradient* follows Dombrowski et al. (NeurIPS 2019). Max-pooling makes
maps jump where another pixel of a window becomes the largest, which no derivative sees;
smoothing it as well makes UPI-Grad on VGG-16 clearly stronger (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from upi.core.errors import ConfigError
from upi.network import kernels
from upi.network.activations import Fast, Smooth
from upi.network.hold import plain_attention

Table = dict[Callable[..., Any], Callable[..., Any]]

#: Softplus sharpness of the surrogate; chosen on a panel of networks (docs/defaults.md).
SURROGATE_BETA = 20.0


def _frozen_forms(folding: kernels.Folding) -> Table:
    """Operations that need no surrogate, for frozen weights: convolution, batch norm, SiLU."""

    def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **named: Any) -> Tensor:
        _, weight, bias = folding.weights.get(id(weight), (weight, weight, bias))
        return kernels.conv2d(x, weight, bias, *args, **named)

    return {
        torch.conv2d: conv2d,
        F.batch_norm: partial(kernels.batch_norm, folding),
        F.silu: kernels.silu,
    }


def _plain_attention(*args: Any, **named: Any) -> Tensor:
    """Attention on its plain kernel, also where the network asks for another one inside its forward pass."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(*args, **named)


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
        if not args and "input" in named:
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
    table: Table = {F.scaled_dot_product_attention: _plain_attention}
    table |= {} if folding is None else _frozen_forms(folding)
    if beta is not None:
        table |= (Smooth if folding is None else Fast)(float(beta)).table()
    with plain_attention(), _Substitute(table):
        yield
