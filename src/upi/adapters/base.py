"""What adapters share: the network as a module that hooks can be put on, and attributions as maps."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.core.errors import ConfigError, ModelError
from upi.core.types import Network
from upi.saliency.reduce import normalise_maps, reduce_channels


def library(name: str, extra: str) -> Any:
    """The package, or how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(f"this map needs the package: pip install 'upi-xai[{extra}]' ({error})") from error


def named(module: Any, name: str, kind: str) -> Any:
    """A method of a library by name.

    Raises:
        ConfigError: There is none of this name.
    """
    found = getattr(module, name, None)
    if found is None or not callable(found):
        raise ConfigError(f"{module.__name__} has no {kind} {name!r}")
    return found


class AsModule(nn.Module):
    """A classifier, or another way to look at one, as a module: images in [0, 1] to logits (N, K).

    The network's own modules are inside, so that hooks on them see every pass.
    """

    def __init__(self, model: Network) -> None:
        super().__init__()
        inner = getattr(model, "net", model)
        if not isinstance(inner, nn.Module):
            raise ModelError(f"this map needs a torch.nn.Module inside, got {type(inner).__name__}")
        self.net = inner
        object.__setattr__(self, "model", model)  # not a child: its module is one already
        super().train(False)

    def train(self, mode: bool = True) -> AsModule:
        """Nothing: the library holds the network in eval mode."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        logits: Tensor = object.__getattribute__(self, "model")(x)
        return logits

    def layer(self, path: str) -> nn.Module:
        """A module of the network by its path.

        Raises:
            ConfigError: There is none.
        """
        if path not in dict(self.net.named_modules()):
            raise ConfigError(f"the network has no layer {path!r}; see net.named_modules()")
        return self.net.get_submodule(path)


@dataclass(frozen=True)
class Reduced:
    """Base of the adapters: attributions of any size become maps of the images' size.

    Attributes:
        reduce: Channel reduction, as in ``upi.saliency.Gradient``.
        normalize: ``l1``, ``l2`` or ``none``.
    """

    _: KW_ONLY
    reduce: str = "abs_sum"
    normalize: str = "l1"

    def _maps(self, attribution: Any, x: Tensor) -> Tensor:
        """Maps (N, H, W) of attributions (N, C, h, w) or (N, h, w), tensors or NumPy arrays."""
        found = attribution if isinstance(attribution, Tensor) else torch.as_tensor(attribution)
        found = found.to(device=x.device, dtype=x.dtype)
        if found.ndim == 3:
            found = found[:, None]
        if found.ndim != 4 or len(found) != len(x):
            raise ModelError(
                f"expected attributions (N, C, h, w) or (N, h, w) with N = {len(x)}, got {tuple(found.shape)}"
            )
        coarse = reduce_channels(found, self.reduce)
        if coarse.shape[1:] != x.shape[2:]:
            coarse = F.interpolate(coarse[:, None], x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        return normalise_maps(coarse, self.normalize)
