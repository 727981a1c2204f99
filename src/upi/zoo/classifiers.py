"""Classifiers from files, from code, or trained and cached.

Weights are read from safetensors only; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from upi.artifact import canonical
from upi.classifier import Classifier
from upi.errors import ArtifactError, ConfigError, ModelError
from upi.storage import write_atomic
from upi.types import Progress
from upi.zoo.datasets import Dataset
from upi.zoo.nets import build
from upi.zoo.training import Recipe, accuracy, train

FORMAT = "upi-classifier"
FILE = "model.safetensors"


@dataclass(frozen=True)
class Trained:
    """A network with what a report needs to know of it."""

    net: nn.Module
    name: str
    about: dict[str, Any]  # arch, channels, size, classes, test_accuracy, ...

    def save(self, path: Path) -> None:
        """Write weights and description as safetensors."""
        metadata = {"format": FORMAT, "version": "1", "about": json.dumps(self.about)}
        weights = {key: value.contiguous() for key, value in self.net.state_dict().items()}
        write_atomic(path, canonical(save(weights, metadata)))


def cache_folder() -> Path:
    """Where trained classifiers are kept: ``UPI_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("UPI_CACHE") or user_cache_path("upi-xai"))


def load_trained(path: Path) -> Trained:
    """Read a classifier written by ``Trained.save``.

    Raises:
        ArtifactError: The file is damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ArtifactError(f"{path}: expected format {FORMAT!r}, got {metadata.get('format')!r}")
        about = json.loads(metadata["about"])
        net = build(about["arch"], channels=about["channels"], size=about["size"], classes=about["classes"])
        net.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path}: not a classifier file ({error})") from error
    return Trained(net.eval(), str(about["arch"]), about)


def train_new(
    arch: str, data: Dataset, test: Dataset, recipe: Recipe, *, progress: Progress | None = None
) -> Trained:
    """Train a network of the zoo and measure it on ``test``."""
    height, width = data.images.shape[2:]
    if height != width:
        raise ConfigError(f"{arch} takes square images, got {height} x {width}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        shape = {
            "channels": data.images.shape[1],
            "size": data.images.shape[2],
            "classes": len(data.classes),
        }
        net = train(build(arch, **shape), data, recipe, progress=progress)
    about = {
        "arch": arch,
        **shape,
        "trained_on": data.name,
        "n_train": len(data),
        "recipe": asdict(recipe),
        "n_test": len(test),
        "test_accuracy": accuracy(net, test),
    }
    return Trained(net, arch, about)


def trained_or_cached(
    arch: str, data: Dataset, test: Dataset, recipe: Recipe, *, progress: Progress | None = None
) -> tuple[Trained, bool]:
    """The same classifier from the cache where it is, else trained and kept.

    Returns:
        The classifier, and whether it came from the cache.
    """
    parts = [arch, repr(recipe), torch.__version__, data.fingerprint(), test.fingerprint()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    path = cache_folder() / "classifiers" / f"{arch}-{key}.safetensors"
    if path.exists():
        return load_trained(path), True
    trained = train_new(arch, data, test, recipe, progress=progress)
    trained.save(path)
    return trained, False


def _from_code(spec: str) -> nn.Module:
    module_name, _, attribute = spec.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--model {spec}: cannot import it: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    try:
        net = factory if isinstance(factory, nn.Module) else factory()
    except Exception as error:
        raise ConfigError(f"--model {spec}: calling it failed: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"--model {spec}: expected a torch.nn.Module, got {type(net).__name__}")
    return net


def load_classifier(
    spec: str, *, mean: list[float] | None = None, std: list[float] | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """A classifier from a training run, a weights file, or ``module:factory``.

    Args:
        spec: A run folder of ``upi train``, a file written by it, or ``package.module:name``
            where the name is a module or a function that returns one.
        mean, std: Normalisation per channel, for networks that expect it.

    Raises:
        ArtifactError, ConfigError, ModelError: It cannot be loaded.
    """
    path = Path(spec)
    if path.exists():
        trained = load_trained(path / FILE if path.is_dir() else path)
        return Classifier(trained.net, mean=mean, std=std), trained.about
    if ":" in spec:
        return Classifier(_from_code(spec), mean=mean, std=std), {"arch": spec}
    raise ConfigError(f"--model {spec}: no such file or folder, and not of the form module:factory")
