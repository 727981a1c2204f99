"""Maps by name: a module of this package that declares one is all that a new map takes.

    @MAPS.add("my_map", "my map", paper={"score": "softmax"})
    @dataclass(frozen=True)
    class MyMap: ...

``paper`` holds the options of the map's form in the paper's preset, where the softmax output is explained;
without it the map has no such form.
"""

from __future__ import annotations

from collections.abc import Callable

from upi.core.registry import Registry
from upi.core.types import SaliencyMap

MAPS: Registry[Callable[..., SaliencyMap]] = Registry("saliency map", "upi.saliency")
