"""torchvision's networks, with ImageNet's normalisation inside."""

from __future__ import annotations

from torch import nn

from upi.core.errors import ConfigError
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


class TorchvisionSource(LibrarySource):
    """``torchvision/NAME``."""

    form, library = "torchvision/NAME", "torchvision"

    def build(self, name: str, shape: Shape, pretrained: bool) -> nn.Module:
        return torchvision_net(name, shape, pretrained)


SOURCES.add("torchvision", "torchvision's networks", order=4)(TorchvisionSource())
