"""Maps by name: a module of this package that declares one is all that a new map takes.

An example::

    @MAPS.add("my_map", "my map", paper={"score": "softmax"})
    @dataclass(frozen=True)
    class MyMap: ...

Where nothing is differentiated twice a named map is given images that require no gradient, so that no
second-order graph is built: take ``upi.saliency.score.input_gradient``, which sees to it, or let the images
require one. (A plain callable always gets images that do.) ``paper`` holds the options of the map's form in
the paper's preset, where the softmax output is explained; without it the preset takes the map as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from upi.core.registry import Registry
from upi.core.types import SaliencyMap

MAPS: Registry[Callable[..., SaliencyMap]] = Registry("saliency map", "upi.saliency")
