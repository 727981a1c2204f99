"""The CIFAR ResNets of He et al. (2016): 20, 32, 44, 56 or 110 layers, shortcuts without parameters.

Names of layers are those of the public weights (akamaster/pytorch_resnet_cifar10), so that their
state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from upi.core.errors import ConfigError
from upi.data.shape import Shape
from upi.models.nets.layers import scaled

#: 6 n + 2 layers: three stages of n blocks, the stem and the last linear layer.
DEPTHS = (20, 32, 44, 56, 110)


class _Subsample(nn.Module):
    """Shortcut of option A: every second pixel, missing channels as zeros on both sides."""

    def __init__(self, stride: int, missing: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, missing // 2, missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else _Subsample(stride, outside - inside)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet for 32 x 32 images: stages of 16, 32 and 64 channels, the last two halve the image.

    It normalises nothing: public weights expect ``mean`` and ``std`` on the ``Classifier`` around it.

    Args:
        shape: Images and classes; square images of any size.
        depth: One of ``DEPTHS``.
        width: Multiplier of the channels.

    Raises:
        ConfigError: The depth is not one of ``DEPTHS``.
    """

    def __init__(self, shape: Shape, depth: int, width: float = 1.0) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ConfigError(f"a CIFAR ResNet has {', '.join(map(str, DEPTHS))} layers, got {depth}")
        widths = [scaled(base, width) for base in (16, 32, 64)]
        self.conv1 = nn.Conv2d(shape.channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        channels = [widths[0], *widths]
        for stage in range(3):
            blocks = [_Block(channels[stage], channels[stage + 1], 2 if stage else 1)]
            blocks += [_Block(widths[stage], widths[stage], 1) for _ in range((depth - 2) // 6 - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(widths[2], shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            out = self.get_submodule(f"layer{stage}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def of_depth(depth: int) -> Callable[[Shape, float], nn.Module]:
    """The builder of one depth, as ``upi.models.nets.NETS`` holds it."""
    return lambda shape, width: CifarResNet(shape, depth, width)
