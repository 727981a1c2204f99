"""Batch norm folded into the convolution before it: the same function, fewer operations.

In eval mode batch norm is a fixed affine map. Folding it into the weights changes outputs by
rounding only and saves its forward pass and both of its derivatives.
"""

from __future__ import annotations

from copy import deepcopy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(net: nn.Module) -> nn.Module:
    """A copy in eval mode in which every batch norm right behind a convolution is folded into it.

    Only pairs that follow each other in an ``nn.Sequential`` are folded, because only there the
    order of the modules is known to be that of the computation; the rest stays as it is.
    """
    copy = deepcopy(net).eval()
    for module in list(copy.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for place in range(len(module) - 1):
            first, second = module[place], module[place + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[place] = fuse_conv_bn_eval(first, second)
                module[place + 1] = nn.Identity()
    return copy
