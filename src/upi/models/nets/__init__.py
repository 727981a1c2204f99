"""Networks by name: small-image forms with a width multiplier, torchvision's and timm's.

``vgg16``, ``resnet18``, ``mobilenet_v2`` and ``vit`` are forms for images of 28 to 64 pixels,
``cifar-resnet32`` and its kin the classical CIFAR ResNets; ``torchvision/NAME`` and ``timm/NAME`` are
those libraries' own. Those of other people's weights are in ``upi.models.public``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from upi.core.errors import ConfigError, unknown_name
from upi.data.shape import Shape
from upi.models.nets.cifar_resnet import of_depth
from upi.models.nets.foreign import FOREIGN
from upi.models.nets.mobilenet import MobileNetV2
from upi.models.nets.resnet import ResNet18
from upi.models.nets.small_cnn import SmallCNN
from upi.models.nets.vgg import VGG16
from upi.models.nets.vit import ViT

NETS: dict[str, Callable[[Shape, float], nn.Module]] = {
    "small-cnn": SmallCNN,
    "vgg16": VGG16,
    "resnet18": ResNet18,
    "mobilenet_v2": MobileNetV2,
    "vit": ViT,
    **{f"cifar-resnet{depth}": of_depth(depth) for depth in (20, 32, 44, 56)},
}
TITLES = {
    "small-cnn": "small CNN",
    "vgg16": "VGG-16",
    "resnet18": "ResNet-18",
    "mobilenet_v2": "MobileNetV2",
    "vit": "ViT",
    **{f"cifar-resnet{depth}": f"CIFAR ResNet-{depth}" for depth in (20, 32, 44, 56)},
}


def build(name: str, shape: Shape, *, width: float = 1.0, pretrained: bool = False) -> nn.Module:
    """A network by name.

    Args:
        name: One of ``NETS``, ``torchvision/NAME`` or ``timm/NAME``.
        shape: Images and classes; the networks of ``NETS`` take square images.
        width: Multiplier of every layer's width; 1 is the published size.
        pretrained: ImageNet weights, for torchvision's and timm's networks; the last layer is
            new where the number of classes differs.

    Raises:
        ConfigError: The name is unknown, or an option does not fit it.
        ModelError: Weights cannot be fetched, or the library is not installed.
    """
    library, slash, rest = name.partition("/")
    if slash and library in FOREIGN:
        if width != 1:
            raise ConfigError(f"{name}: only the networks {', '.join(NETS)} have a width multiplier")
        return FOREIGN[library](rest, shape, pretrained)
    if name not in NETS:
        raise unknown_name("network", name, [*NETS, *(f"{library}/NAME" for library in FOREIGN)])
    if pretrained:
        raise ConfigError(f"{name}: no published weights; use torchvision/NAME or timm/NAME, or train it")
    if not width > 0:
        raise ConfigError(f"the width multiplier must be above zero, got {width}")
    return NETS[name](shape, width)


__all__ = ["FOREIGN", "NETS", "TITLES", "build"]
