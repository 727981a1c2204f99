"""torchvision's networks, with ImageNet's normalisation inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from upi.core.errors import ConfigError
from upi.data.preprocess import Preprocess
from upi.data.shape import Shape
from upi.models.library import LibrarySource, fetched, last_linear, library
from upi.models.nets.layers import Normalise
from upi.models.registry import SOURCES

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def torchvision_net(name: str, shape: Shape, pretrained: bool) -> nn.Module:
    """``torchvision.models``' network; ImageNet's normalisation, three channels."""
    models = library("torchvision").models
    if name not in models.list_models(module=models):
        raise ConfigError(
            f"torchvision/{name}: unknown; known: {', '.join(models.list_models(module=models))}"
        )
    if shape.channels != 3:
        raise ConfigError(f"torchvision/{name} takes 3 channels, the images have {shape.channels}")
    extra = {"init_weights": True, "aux_logits": False} if name == "googlenet" and not pretrained else {}
    if not pretrained:
        net = models.get_model(name, weights=None, num_classes=shape.classes, **extra)
    else:
        net = fetched(name, lambda: models.get_model(name, weights="DEFAULT"))
        parent, leaf, linear = last_linear(net)
        if linear.out_features != shape.classes:
            setattr(parent, leaf, nn.Linear(linear.in_features, shape.classes))
    return nn.Sequential(Normalise(*IMAGENET), net)


def _weights(name: str) -> Any:
    """The weights that torchvision takes by default, nothing being fetched; None where there are none."""
    models = library("torchvision").models
    if name not in models.list_models(module=models):
        raise ConfigError(f"torchvision/{name}: unknown; see torchvision.models.list_models()")
    return getattr(models.get_model_weights(name), "DEFAULT", None)


class TorchvisionSource(LibrarySource):
    """``torchvision/NAME``."""

    form, library = "torchvision/NAME", "torchvision"

    def build(self, name: str, shape: Shape, pretrained: bool) -> nn.Module:
        return torchvision_net(name, shape, pretrained)

    def preprocess(self, spec: str) -> Preprocess | None:
        weights = _weights(spec.partition("/")[2])
        if weights is None:
            return None
        given = weights.transforms()
        (crop,), (resize,) = given.crop_size, given.resize_size
        return Preprocess(crop, crop, resize, given.interpolation.value, channels=3)

    def labels(self, spec: str) -> Sequence[str] | None:
        weights = _weights(spec.partition("/")[2])
        return None if weights is None else weights.meta.get("categories")


SOURCES.add("torchvision", "torchvision's networks", order=4)(TorchvisionSource())
