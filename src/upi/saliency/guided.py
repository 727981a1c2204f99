"""Guided back-propagation, differentiable in the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from upi.core.errors import ModelError
from upi.core.types import Network
from upi.saliency.reduce import normalise_maps, reduce_channels
from upi.saliency.registry import MAPS
from upi.saliency.score import score_of


class _Guided(torch.autograd.Function):
    """A rectifier (beta None) or softplus that lets only positive gradients through while a map is taken.

    Afterwards, when the map itself is differentiated, it is the plain function again: what a map depends on
    is the network, not its guided gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float | None, rectifiers: _Rectifiers) -> Tensor:
        ctx.beta, ctx.rectifiers = beta, rectifiers
        ctx.save_for_backward(x)
        return F.relu(x) if beta is None else F.softplus(x, beta=beta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        slope = (x > 0).to(x) if ctx.beta is None else torch.sigmoid(ctx.beta * x)
        through = grads[0] * (grads[0] > 0) if ctx.rectifiers.guiding else grads[0]
        return through * slope, None, None


class _Rectifiers(TorchFunctionMode):  # type: ignore[misc,unused-ignore]
    """Guided forms of ReLU and softplus, and how many were met."""

    def __init__(self) -> None:
        super().__init__()
        self.met, self.guiding = 0, False
        self.table: dict[Any, Callable[..., Tensor]] = {
            F.relu: self.relu,
            torch.relu: self.relu,
            Tensor.relu: self.relu,
            torch.relu_: self.relu_,
            Tensor.relu_: self.relu_,
            F.softplus: self.softplus,
            F.relu6: self.relu6,
            F.hardtanh: self.hardtanh,
        }

    def guided(self, x: Tensor, beta: float | None) -> Tensor:
        found: Tensor = _Guided.apply(x, beta, self)
        return found

    def relu(self, x: Tensor, inplace: bool = False) -> Tensor:
        out = self.guided(x.clone() if inplace else x, None)
        return x.copy_(out) if inplace else out

    def relu_(self, x: Tensor) -> Tensor:
        return self.relu(x, inplace=True)

    def softplus(self, x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
        return self.guided(x, float(beta))

    def hardtanh(
        self, x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
    ) -> Tensor:
        source = x.clone() if inplace else x
        out = min_val + self.guided(source - min_val, None) - self.guided(source - max_val, None)
        return x.copy_(out) if inplace else out

    def relu6(self, x: Tensor, inplace: bool = False) -> Tensor:
        return self.hardtanh(x, 0.0, 6.0, inplace)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        form = self.table.get(func)
        if form is None:
            return func(*args, **named)
        self.met += 1
        args = args or (named.pop("input"),)
        return form(*args, **named)


@MAPS.add("guided_backprop", "guided-backpropagation map", order=7, paper={"score": "softmax"})
@dataclass(frozen=True)
class GuidedBackprop:
    """Guided back-propagation (Springenberg et al. 2015): ReLUs let positive gradients pass, and no others.

    On the surrogate of a network its softplus functions are guided instead. It depends little on the class
    and on the weights of late layers (Adebayo et al. 2018): read it as a picture of the input's edges.

    Attributes: as in ``upi.saliency.Gradient``.

    Raises:
        ModelError: (When called) the network has no ReLU: what would be guided is not defined.
    """

    score: str = "logit"
    reduce: str = "abs_sum"
    normalize: str = "l1"

    #: Attack gradients take autograd's own derivatives: quick kernels would be passed by.
    plain = True

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        differentiable = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            point = x if differentiable else x.detach().requires_grad_()
            with _Rectifiers() as rectifiers:
                logits = model(point)
            total = score_of(model, logits, target, self.score).sum()
            rectifiers.guiding = True
            try:
                (gradient,) = torch.autograd.grad(total, point, create_graph=differentiable)
            finally:
                rectifiers.guiding = False
        if not rectifiers.met:
            raise ModelError(
                "guided back-propagation needs a network with ReLU; this one has none (scripted or compiled "
                "parts are not seen). Take the simple gradient, or input x gradient"
            )
        return normalise_maps(reduce_channels(gradient, self.reduce), self.normalize)
