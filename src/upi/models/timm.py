"""timm's networks, each with its own normalisation inside."""

from __future__ import annotations

from typing import Any

from torch import nn

from upi.core.errors import ConfigError
from upi.data.preprocess import Preprocess
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

    def preprocess(self, spec: str) -> Preprocess | None:
        timm, name = library("timm"), spec.partition("/")[2]
        if not timm.is_model(name):
            raise ConfigError(f"timm/{name}: unknown; see timm.list_models()")
        given = timm.get_pretrained_cfg(name)
        if given is None:
            return None
        config = timm.data.resolve_data_config(pretrained_cfg=given.to_dict(), verbose=False)
        _, height, width = config["input_size"]
        if config["crop_mode"] == "squash":
            resize: int | tuple[int, int] = (
                int(height / config["crop_pct"]),
                int(width / config["crop_pct"]),
            )
        else:
            resize = int(min(height, width) / config["crop_pct"])
        return Preprocess(height, width, resize, config["interpolation"], channels=3)


SOURCES.add("timm", "timm's networks", order=5)(TimmSource())
