"""The door for classifiers: whatever a user names becomes one, by the source that knows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from upi.data.preprocess import Preprocess
from upi.data.shape import Shape
from upi.models.cache import cache_folder, cache_key, new_net, train_new, trained_or_cached
from upi.models.public import public_classifier
from upi.models.registry import SOURCES, Request, source_of
from upi.models.trained import FILE, Trained, load_trained
from upi.network.classifier import Classifier


def preprocess_of(spec: str) -> Preprocess | None:
    """How pictures become the images of a network of ``load_classifier``; None where it does not say.

    Raises:
        ConfigError, ModelError: The name is unknown to its library, or its configuration cannot be had.
    """
    return next((source.preprocess(spec) for source in SOURCES.values() if source.accepts(spec)), None)


def load_classifier(
    spec: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    shape: Shape | None = None,
    folder: Path | None = None,
    output: str | int | None = None,
    label: int | None = None,
    multi_label: bool = False,
) -> tuple[Classifier, dict[str, Any]]:
    """A classifier by what a user calls it, and what a report says of it.

    Args:
        spec: A run folder of ``upi train``, a file written by it, ``package.module:name`` where
            the name is a module or a function that returns one, a name of ``upi.models.public.PUBLIC``,
            ``torchvision/NAME``, ``timm/NAME``, ``hf/NAME``, or any other form that a source accepts.
        mean, std: Normalisation per channel, for networks from code that expect it; public ones,
            torchvision's and timm's bring their own.
        weights: State dict for public networks, torchvision's and timm's.
        pretrained: Fetch ImageNet weights for the latter two instead.
        shape: Images and classes, for them.
        folder: Where ``networks/NAME.safetensors`` of public networks lie; ``UPI_DATA`` by default.
        output, label, multi_label: As of ``upi.models.registry.Request``.

    Raises:
        ArtifactError, ConfigError, ModelError: It cannot be loaded.
    """
    request = Request(spec, mean, std, weights, pretrained, shape, folder, output, label, multi_label)
    return source_of(spec).load(request)


__all__ = [
    "FILE",
    "Trained",
    "cache_folder",
    "cache_key",
    "load_classifier",
    "load_trained",
    "new_net",
    "preprocess_of",
    "public_classifier",
    "train_new",
    "trained_or_cached",
]
