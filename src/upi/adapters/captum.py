"""Attribution methods of captum (Kokhlikyan et al. 2020)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upi.adapters.base import AsModule, Reduced, library, named
from upi.core.types import Network

#: Methods that are differentiable once the gradients that they take are.
ATTACHED = ("Saliency", "InputXGradient", "IntegratedGradients")
#: Methods that draw random numbers: explained image by image, with the same numbers for each.
RANDOM = ("GradientShap", "DeepLiftShap", "Lime", "KernelShap", "LayerGradientShap", "NeuronGradientShap")


def _attached(
    forward_fn: Callable[..., Any],
    inputs: Any,
    target_ind: Any = None,
    additional_forward_args: Any = None,
    **_: Any,
) -> Any:
    """captum's gradients of the target's output, with the graph that a second derivative needs."""
    with torch.enable_grad():
        outputs = forward_fn(*inputs, *(additional_forward_args or ()))
        if isinstance(target_ind, Tensor) and target_ind.numel() == 1:
            target_ind = int(target_ind)  # captum leaves the class of a single image as it is
        several = isinstance(target_ind, Tensor)
        chosen = outputs.gather(1, target_ind[:, None]) if several else outputs[:, target_ind]
        return torch.autograd.grad(chosen.sum(), inputs, create_graph=True)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The same random numbers of torch and NumPy inside, and those of before afterwards."""
    before = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(before)


@dataclass(frozen=True)
class Captum(Reduced):
    """A method of ``captum.attr`` as a map.

    Methods whose gradients captum takes by ``gradient_func`` (Saliency, InputXGradient, IntegratedGradients)
    are differentiable here, which they are not in captum itself: they can be fitted on. Others are evaluated.

    Attributes:
        method: Name in ``captum.attr``, such as ``"Saliency"`` or ``"LayerGradCam"``.
        layer: Path of the module that a layer method looks at; see ``net.named_modules()``.
        options: Further words of the method's constructor.
        attribute: Further words of its ``attribute``.
        tunnel: Words of ``NoiseTunnel.attribute``, such as ``{"nt_type": "smoothgrad", "nt_samples": 8,
            "stdevs": 0.1}``; None leaves it out.
        seed: Fixes random numbers, image by image.
        reduce, normalize: As in ``upi.adapters.base.Reduced``.

    Raises:
        ConfigError: (When called) the method or the layer does not exist.
        ModelError: (When called) captum is missing, or gives no attribution of the images' layout.
    """

    method: str = "Saliency"
    _: KW_ONLY
    layer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    attribute: Mapping[str, Any] = field(default_factory=dict)
    tunnel: Mapping[str, Any] | None = None
    seed: int = 0

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        if self.tunnel is None and self.method not in RANDOM:
            return self._maps(self._attribution(model, x, target), x)
        parts = []
        for place in range(len(x)):
            with _seeded(self.seed, x.device):
                parts.append(self._attribution(model, x[place : place + 1], target[place : place + 1]))
        return self._maps(torch.cat(parts), x)

    def _attribution(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        attr = library("captum.attr", "captum")
        module = AsModule(model)
        layer = () if self.layer is None else (module.layer(self.layer),)
        method = named(attr, self.method, "method")(module, *layer, **self.options)
        differentiable = x.requires_grad and torch.is_grad_enabled()
        if differentiable and self.method in ATTACHED:
            method.gradient_func = _attached
        if self.method == "Saliency":
            words: dict[str, Any] = {"abs": False, **self.attribute}  # the reduction takes absolute values
        else:
            words = dict(self.attribute)
        if self.tunnel is not None:
            method, words = attr.NoiseTunnel(method), {**words, **self.tunnel}
        with nullcontext() if differentiable else torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Setting .*hooks")  # they are gone when it returns
            point = x if differentiable else x.detach().requires_grad_()
            found: Tensor = method.attribute(point, target=target, **words)
        return found if differentiable else found.detach()
