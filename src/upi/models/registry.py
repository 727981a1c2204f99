"""Sources of classifiers: a module of this package that declares one is all that a new one takes.

An example::

    class Mine(ModelSource):
        form = "mine/NAME"
        def accepts(self, spec): return spec.startswith("mine/")
        def load(self, request): ...

    SOURCES.add("mine", "networks of mine", order=6)(Mine())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from upi.core.errors import ConfigError
from upi.core.registry import Registry
from upi.data.preprocess import Preprocess
from upi.data.shape import Shape
from upi.network.classifier import Classifier


@dataclass(frozen=True)
class Request:
    """What is asked of a source.

    Attributes:
        spec: Which network, in the form of its source.
        mean, std: Normalisation per channel, for networks that do not bring their own.
        weights: State dict for networks without weights.
        pretrained: Fetch published weights instead.
        shape: Images and classes, where they are known.
        folder: Where ``networks/NAME.safetensors`` of public networks lie; ``UPI_DATA`` by default.
        output: Name or place of the logits in what the network returns, for networks from code.
        label: Of a multi-label network, the class that is explained.
        multi_label: A network from code has a yes or no for every class.
    """

    spec: str
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    weights: Path | None = None
    pretrained: bool = False
    shape: Shape | None = None
    folder: Path | None = None
    output: str | int | None = None
    label: int | None = None
    multi_label: bool = False


class ModelSource(ABC):
    """Where classifiers come from.

    Attributes:
        form: How users write one, for help and messages.
        trains: Whether it has architectures for ``upi train``.
        filled: Whether its networks get their weights from the file of a request.
        runs_code: Whether a word for one runs code of the user's. Users may say such a word, files may not.
        names: Words without a slash or colon that it accepts and that are no files.
    """

    form: ClassVar[str]
    trains: ClassVar[bool] = False
    filled: ClassVar[bool] = False
    runs_code: ClassVar[bool] = False
    names: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def accepts(self, spec: str) -> bool:
        """Whether this is the source that ``spec`` means; asked in the order of the registry."""

    @abstractmethod
    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        """The classifier, and what a report says of it.

        Raises:
            ArtifactError, ConfigError, ModelError: It cannot be loaded.
        """

    def preprocess(self, spec: str) -> Preprocess | None:
        """How pictures become the images that the network is made for; None where it does not say."""
        return None

    def untrained(self, spec: str, shape: Shape, *, pretrained: bool) -> nn.Module:
        """The network for ``upi train``, with published weights where asked for.

        Raises:
            ConfigError: This source has no architectures, only networks.
        """
        raise ConfigError(f"{spec}: nothing to train; expected a network of the zoo, or of a library")


SOURCES: Registry[ModelSource] = Registry("source of models", "upi.models")


def source_of(spec: str) -> ModelSource:
    """The source that a user's word for a network means.

    Raises:
        ConfigError: None does.
    """
    found = next((source for source in SOURCES.values() if source.accepts(spec)), None)
    if found is None:
        raise ConfigError(f"model {spec}: no such file or folder, and of no known form: {forms()}")
    return found


def forms() -> str:
    """All forms of a model in one line."""
    return ", ".join(source.form for source in SOURCES.values())
