"""What networks of other libraries have in common: fetching, last layers, weights from a file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from upi.core.errors import ConfigError, ModelError, first_line
from upi.data.shape import Shape
from upi.models.registry import ModelSource, Request
from upi.models.weights import fill
from upi.network.classifier import Classifier


def library(name: str) -> ModuleType:
    """The package of a library, or how to install it."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(f"{name} networks need the package: pip install 'upi-xai[zoo]' ({error})") from error


def fetched(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What ``make`` gives, with this library's error where weights cannot be had."""
    try:
        return make()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{name}: weights cannot be had: {first_line(error)}. On a machine without access, "
            "ask for no pretrained network and give a file of weights",
            options=("pretrained", "weights"),
        ) from error


def last_linear(net: nn.Module) -> tuple[nn.Module, str, nn.Linear]:
    """The last linear layer, with its parent and its name there."""
    found = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise ModelError(f"{type(net).__name__} has no linear layer to adapt to other classes")
    path, linear = found[-1]
    parent, _, leaf = path.rpartition(".")
    return net.get_submodule(parent), leaf, linear


class LibrarySource(ModelSource):
    """Networks ``LIBRARY/NAME`` with their normalisation inside.

    Attributes:
        library: Name of the package.
    """

    library: str
    trains = True
    filled = True

    def accepts(self, spec: str) -> bool:
        return spec.partition("/")[0] == self.library

    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        spec, shape = request.spec, request.shape
        if shape is None:
            raise ConfigError(f"model {spec}: the images' shape and classes must be known")
        if request.weights is None and not request.pretrained:
            raise ConfigError(
                f"model {spec}: give a file of weights or ask for the pretrained ones; "
                "untrained maps say nothing",
                options=("weights", "pretrained"),
            )
        net = self.untrained(spec, shape, pretrained=request.pretrained and request.weights is None)
        about: dict[str, Any] = {"arch": spec}
        if request.weights is not None:
            fill(net, request.weights, spec)
        elif (names := self.labels(spec)) is not None and len(names) == shape.classes:
            about["labels"] = list(names)
        return Classifier(net), about

    def labels(self, spec: str) -> Sequence[str] | None:
        """Names of the classes of the pretrained network, where the library knows them."""
        return None

    def untrained(self, spec: str, shape: Shape, *, pretrained: bool) -> nn.Module:
        return self.build(spec.partition("/")[2], shape, pretrained)

    @abstractmethod
    def build(self, name: str, shape: Shape, pretrained: bool) -> nn.Module:
        """The library's network; its last layer is new where the number of classes differs."""
