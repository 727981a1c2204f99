"""timm's networks, each with its own normalisation inside."""

from __future__ import annotations

from typing import Any

from torch import nn

from upi.core.errors import ConfigError
from upi.data.shape import Shape
from upi.models.library import LibrarySource, fetched, library
from upi.models.nets.layers import Normalise
from upi.models.registry import SOURCES


def timm_net(name: str, shape: Shape, pretrained: bool) -> nn.Module:
    """timm's network with its own normalisation."""
    timm = library("timm")
    if not timm.is_model(name):
        raise ConfigError(f"timm/{name}: unknown; see timm.list_models()")
    make = lambda: timm.create_model(  # noqa: E731
        name, pretrained=pretrained, num_classes=shape.classes, in_chans=shape.channels
    )
    net = fetched(name, make)
    config: dict[str, Any] = vars(net)["pretrained_cfg"]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if len(mean) != shape.channels:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return nn.Sequential(Normalise(mean, std), net)


class TimmSource(LibrarySource):
    """``timm/NAME``."""

    form, library = "timm/NAME", "timm"

    def build(self, name: str, shape: Shape, pretrained: bool) -> nn.Module:
        return timm_net(name, shape, pretrained)


SOURCES.add("timm", "timm's networks", order=5)(TimmSource())
