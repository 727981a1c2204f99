"""Operations of frozen networks with derivatives written for being differentiated twice.

A step of an attack differentiates a map, which is a gradient already. Autograd's general second
derivatives of convolution, softplus and pooling compute more than a network with frozen weights
needs; these compute exactly what is left: one convolution for each convolution, and one factor
per activation that is kept from the forward pass. They are the same functions as the plain forms
in ``upi.network.smooth``, which stay the reference that tests and every fit compare them with.
"""

from __future__ import annotations

from upi.network.kernels.convolution import conv2d
from upi.network.kernels.folding import Folding, batch_norm, find_foldable
from upi.network.kernels.pooling import Windows, soft_max_pool2d, windows
from upi.network.kernels.silu import silu
from upi.network.kernels.softplus import hardtanh, softplus

__all__ = [
    "Folding",
    "Windows",
    "batch_norm",
    "conv2d",
    "find_foldable",
    "hardtanh",
    "silu",
    "soft_max_pool2d",
    "softplus",
    "windows",
]
