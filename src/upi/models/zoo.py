"""Networks of the zoo with weights of the user's: ``zoo/NAME`` and a file."""

from __future__ import annotations

from typing import Any

from upi.core.errors import ConfigError
from upi.models.architectures import build
from upi.models.nets import NETS
from upi.models.registry import SOURCES, ModelSource, Request
from upi.models.weights import fill
from upi.network.classifier import Classifier


class ZooSource(ModelSource):
    """A published width of ``NETS``, trained elsewhere; the file is compared before anything is loaded."""

    form = "zoo/NAME"
    filled = True

    def accepts(self, spec: str) -> bool:
        return spec.partition("/")[0] == "zoo"

    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        name = request.spec.partition("/")[2]
        if name not in NETS:
            raise ConfigError(f"model {request.spec}: unknown; known: zoo/{', zoo/'.join(NETS)}")
        if request.shape is None:
            raise ConfigError(f"model {request.spec}: the images' shape and classes must be known")
        if request.weights is None:
            raise ConfigError(
                f"model {request.spec}: give a file of weights; untrained maps say nothing",
                options=("weights",),
            )
        net = build(name, request.shape)
        fill(net, request.weights, request.spec)
        return Classifier(net, mean=request.mean, std=request.std), {"arch": name}


SOURCES.add("zoo", "architectures of the zoo with your weights", order=6)(ZooSource())
