"""Class activation maps of pytorch-grad-cam (Gildenblat et al. 2021): NumPy comes out, so evaluated only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from upi.adapters.base import AsModule, Reduced, library, named
from upi.core.types import Network


@dataclass(frozen=True)
class CAM(Reduced):
    """A method of ``pytorch_grad_cam`` as a map. It cannot be fitted on; fit on the simple gradient.

    Attributes:
        method: Name of its class, such as ``"GradCAM"`` or ``"HiResCAM"``.
        layers: Paths of the modules whose features are looked at.
        reshape: Lays tokens out as feature maps, as its ``reshape_transform``.
        reduce, normalize: As in ``upi.adapters.base.Reduced``.

    Raises:
        ConfigError: (When called) the method or a layer does not exist.
        ModelError: (When called) the package is missing.
    """

    method: str = "GradCAM"
    _: KW_ONLY
    layers: tuple[str, ...]
    reshape: Callable[[Any], Tensor] | None = None

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,), without a graph."""
        cams = library("pytorch_grad_cam", "grad-cam")
        targets = library("pytorch_grad_cam.utils.model_targets", "grad-cam")
        module = AsModule(model)
        places = [module.layer(path) for path in self.layers]
        wanted = [targets.ClassifierOutputTarget(int(one)) for one in target]
        with (
            torch.enable_grad(),
            named(cams, self.method, "method")(module, places, reshape_transform=self.reshape) as cam,
        ):
            found = cam(input_tensor=x.detach().requires_grad_(), targets=wanted)
        return self._maps(found, x)
