"""Layer-wise relevance propagation and its relatives by zennit (Anders et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from upi.adapters.base import AsModule, Reduced, library, named
from upi.core.types import Network


@dataclass(frozen=True)
class Zennit(Reduced):
    """A composite of zennit as a map: relevance of the class's logit, carried back by the composite's rules.

    Attributes:
        composite: Name in ``zennit.composites``, such as ``"EpsilonPlus"`` or ``"GuidedBackprop"``.
        attributor: Name in ``zennit.attribution``: ``"Gradient"``, ``"SmoothGrad"``, ...
        canonizers: Names in ``zennit.torchvision`` or ``zennit.canonizers`` that merge batch norm, such as
            ``"ResNetCanonizer"``.
        options: Further words of the composite's constructor.
        words: Further words of the attributor's constructor.
        seed: Fixes random numbers.
        reduce, normalize: As in ``upi.adapters.base.Reduced``.

    Raises:
        ConfigError: (When called) a name does not exist.
        ModelError: (When called) zennit is missing.
    """

    composite: str | None = "EpsilonPlus"
    _: KW_ONLY
    attributor: str = "Gradient"
    canonizers: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        library("zennit", "zennit")
        module = AsModule(model)
        composite = None
        if self.composite is not None:
            made = named(library("zennit.composites", "zennit"), self.composite, "composite")
            composite = made(canonizers=[self._canonizer(name) for name in self.canonizers], **self.options)
        attributor = named(library("zennit.attribution", "zennit"), self.attributor, "attributor")
        parts = []
        for place in range(len(x)) if self.attributor == "SmoothGrad" else (slice(None),):
            some = slice(place, place + 1) if isinstance(place, int) else place
            with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
                torch.manual_seed(self.seed)
                parts.append(self._relevance(module, attributor, composite, x[some], target[some]))
        return self._maps(torch.cat(parts), x)

    def _canonizer(self, name: str) -> Any:
        for place in ("zennit.torchvision", "zennit.canonizers"):
            found = getattr(library(place, "zennit"), name, None)
            if found is not None:
                return found()
        return named(library("zennit.canonizers", "zennit"), name, "canonizer")

    def _relevance(self, module: AsModule, make: Any, composite: Any, x: Tensor, target: Tensor) -> Tensor:
        def wanted(output: Tensor) -> Tensor:
            return torch.zeros_like(output).scatter(1, target[:, None], 1.0)

        with torch.enable_grad(), make(model=module, composite=composite, **self.words) as attributor:
            point = x.detach().requires_grad_()
            _, relevance = attributor(point, wanted)
        found: Tensor = relevance.detach()
        return found
