"""Untrained networks by name: those of the zoo, and those of libraries."""

from __future__ import annotations

from torch import nn

from upi.core.errors import ConfigError, unknown_name
from upi.data.shape import Shape
from upi.models.nets import NETS
from upi.models.registry import SOURCES


def build(name: str, shape: Shape, *, width: float = 1.0, pretrained: bool = False) -> nn.Module:
    """A network by name.

    Args:
        name: One of ``upi.models.nets.NETS``, ``torchvision/NAME`` or ``timm/NAME``.
        shape: Images and classes; the networks of ``NETS`` take square images.
        width: Multiplier of every layer's width; 1 is the published size.
        pretrained: ImageNet weights, for torchvision's and timm's networks; the last layer is
            new where the number of classes differs.

    Raises:
        ConfigError: The name is unknown, or an option does not fit it.
        ModelError: Weights cannot be fetched, or the library is not installed.
    """
    if name in NETS:
        return _own(name, shape, width, pretrained)
    libraries = [source for source in SOURCES.values() if source.trains]
    source = next((source for source in libraries if source.accepts(name)), None)
    if source is None:
        raise unknown_name("network", name, [*NETS, *(source.form for source in libraries)])
    if width != 1:
        raise ConfigError(f"{name}: only the networks {', '.join(NETS)} have a width multiplier")
    return source.untrained(name, shape, pretrained=pretrained)


def _own(name: str, shape: Shape, width: float, pretrained: bool) -> nn.Module:
    if pretrained:
        raise ConfigError(f"{name}: no published weights; use torchvision/NAME or timm/NAME, or train it")
    if not width > 0:
        raise ConfigError(f"the width multiplier must be above zero, got {width}")
    return NETS[name](shape.square(), width)
