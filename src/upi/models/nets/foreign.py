"""torchvision's and timm's networks, with their normalisation inside."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from upi.core.errors import ConfigError, ModelError
from upi.data.shape import Shape
from upi.models.nets.layers import Normalise

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _library(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(f"{name} networks need the package: pip install 'upi-xai[zoo]' ({error})") from error


def _fetched(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{name}: weights cannot be had: {str(error).splitlines()[0]}. On a machine without access, "
            "leave --pretrained out and give a file with --weights"
        ) from error


def _last_linear(net: nn.Module) -> tuple[nn.Module, str, nn.Linear]:
    found = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise ModelError(f"{type(net).__name__} has no linear layer to adapt to other classes")
    path, linear = found[-1]
    parent, _, leaf = path.rpartition(".")
    return net.get_submodule(parent), leaf, linear


def torchvision_net(name: str, shape: Shape, pretrained: bool) -> nn.Module:
    """``torchvision.models``' network; ImageNet's normalisation, three channels."""
    models = _library("torchvision").models
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
        net = _fetched(name, lambda: models.get_model(name, weights="DEFAULT"))
        parent, leaf, linear = _last_linear(net)
        if linear.out_features != shape.classes:
            setattr(parent, leaf, nn.Linear(linear.in_features, shape.classes))
    return nn.Sequential(Normalise(*IMAGENET), net)


def timm_net(name: str, shape: Shape, pretrained: bool) -> nn.Module:
    """timm's network with its own normalisation."""
    timm = _library("timm")
    if not timm.is_model(name):
        raise ConfigError(f"timm/{name}: unknown; see timm.list_models()")
    make = lambda: timm.create_model(  # noqa: E731
        name, pretrained=pretrained, num_classes=shape.classes, in_chans=shape.channels
    )
    net = _fetched(name, make)
    config: dict[str, Any] = vars(net)["pretrained_cfg"]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if len(mean) != shape.channels:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return nn.Sequential(Normalise(mean, std), net)


FOREIGN: dict[str, Callable[[str, Shape, bool], nn.Module]] = {
    "torchvision": torchvision_net,
    "timm": timm_net,
}
