"""Networks of the zoo by name, small-image forms with a width multiplier.

``vgg16``, ``resnet18``, ``mobilenet_v2`` and ``vit`` are forms for images of 28 to 64 pixels,
``cifar-resnet32`` and its kin the classical CIFAR ResNets. Networks of libraries and of other people's
weights are sources of ``upi.models``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from upi.data.shape import Shape
from upi.models.nets.cifar_resnet import of_depth
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


__all__ = ["NETS", "TITLES"]
