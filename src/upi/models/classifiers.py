"""Classifiers from files, from code, from torchvision and timm, or trained and cached.

Weights are read from safetensors, or from ``.pt`` with ``weights_only=True``: no object is
ever unpickled.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from upi.core.errors import ArtifactError, ConfigError, ModelError
from upi.core.storage import write_atomic
from upi.core.types import Progress
from upi.data.shape import Shape
from upi.datasets.splits import Dataset
from upi.models.nets import FOREIGN, build
from upi.models.public import PUBLIC
from upi.models.training import Recipe, accuracy, train
from upi.models.weights import fill
from upi.network.classifier import Classifier
from upi.perturbation.file import canonical

FORMAT = "upi-classifier"
FILE = "model.safetensors"


@dataclass(frozen=True)
class Trained:
    """A network with what a report needs to know of it."""

    net: nn.Module
    name: str
    about: dict[str, Any]  # arch, width, channels, size, classes, test_accuracy, ...

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
        shape = Shape(about["channels"], about["size"], about["classes"])
        net = build(about["arch"], shape, width=about.get("width", 1.0))
        net.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path}: not a classifier file ({error})") from error
    return Trained(net.eval(), str(about["arch"]), about)


def new_net(
    arch: str, shape: Shape, *, width: float = 1.0, pretrained: bool = False, seed: int = 0
) -> nn.Module:
    """A network of the zoo with initial weights fixed by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(arch, shape, width=width, pretrained=pretrained)


def train_new(
    arch: str,
    data: Dataset,
    test: Dataset,
    recipe: Recipe,
    *,
    width: float = 1.0,
    pretrained: bool = False,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a network of the zoo and measure it on ``test``.

    Args:
        arch, width, pretrained: As for ``upi.models.nets.build``.
        data, test: Training images, and those that accuracy is measured on.
        recipe, device, checkpoint, progress: As for ``upi.models.training.train``.
    """
    begin = time.perf_counter()
    shape = data.shape
    net = new_net(arch, shape, width=width, pretrained=pretrained, seed=recipe.seed)
    train(net, data, recipe, device=device, checkpoint=checkpoint, progress=progress)
    about = {
        "arch": arch,
        "width": width,
        **asdict(shape),
        "parameters": sum(p.numel() for p in net.parameters()),
        "trained_on": data.name,
        "n_train": len(data),
        "recipe": asdict(recipe),
        "n_test": len(test),
        "test_accuracy": accuracy(net, test),
        "seconds": round(time.perf_counter() - begin, 1),
        "threads": torch.get_num_threads(),
    }
    return Trained(net, arch, about)


def cache_key(arch: str, width: float, recipe: Recipe, data: Dataset, test: Dataset) -> str:
    """File name that tells trained classifiers apart."""
    parts = [arch, str(width), repr(recipe), torch.__version__, data.fingerprint(), test.fingerprint()]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{arch.replace('/', '--')}-{digest[:16]}"


def trained_or_cached(
    arch: str,
    data: Dataset,
    test: Dataset,
    recipe: Recipe,
    *,
    width: float = 1.0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[Trained, bool]:
    """The same classifier from the cache where it is, else trained and kept.

    Training that was cut short goes on where its last epoch ended.

    Returns:
        The classifier, and whether it came from the cache.
    """
    path = cache_folder() / "classifiers" / f"{cache_key(arch, width, recipe, data, test)}.safetensors"
    if path.exists():
        return load_trained(path), True
    trained = train_new(
        arch,
        data,
        test,
        recipe,
        width=width,
        device=device,
        checkpoint=path.with_suffix(".checkpoint"),
        progress=progress,
    )
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


def image_size(spec: str) -> int | None:
    """Side of the images that a network of ``load_classifier`` is made for; None where it does not say."""
    return PUBLIC[spec].size if spec in PUBLIC else None


def public_classifier(
    name: str, *, weights: Path | None = None, folder: Path | None = None, shape: Shape | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """A network that other people trained, with its normalisation, and what a report says of it.

    Args:
        name: One of ``upi.models.public.PUBLIC``.
        weights, folder: As for ``load_classifier``.
        shape: Images and classes, where they are known; the network is built for their size.

    Raises:
        ConfigError: The images have other channels or classes than the network.
        ArtifactError, ModelError: Package or weights are missing, or of another architecture.
    """
    public = PUBLIC[name]
    shape = shape or public.shape
    if (shape.channels, shape.classes) != (public.shape.channels, public.classes):
        raise ConfigError(
            f"{name} tells {public.classes} classes of {public.dataset} apart on coloured images; these "
            f"images have {shape.channels} channels and {shape.classes} classes"
        )
    net = public.load(weights=weights, folder=folder, size=shape.size)
    about = {
        "arch": name,
        "title": public.title,
        "width": 1.0,
        "origin": public.origin,
        **asdict(shape),
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    return Classifier(net, mean=public.mean, std=public.std), about


def load_classifier(
    spec: str,
    *,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    shape: Shape | None = None,
    folder: Path | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """A classifier from a training run, a weights file, code, a public network, torchvision or timm.

    Args:
        spec: A run folder of ``upi train``, a file written by it, ``package.module:name`` where
            the name is a module or a function that returns one, a name of ``upi.models.public.PUBLIC``,
            or ``torchvision/NAME`` or ``timm/NAME``.
        mean, std: Normalisation per channel, for networks from code that expect it; public ones,
            torchvision's and timm's bring their own.
        weights: State dict for public networks, torchvision's and timm's.
        pretrained: Fetch ImageNet weights for the latter two instead.
        shape: Images and classes, for them.
        folder: Where ``networks/NAME.safetensors`` of public networks lie; ``UPI_DATA`` by default.

    Raises:
        ArtifactError, ConfigError, ModelError: It cannot be loaded.
    """
    path = Path(spec)
    if path.exists():
        trained = load_trained(path / FILE if path.is_dir() else path)
        return Classifier(trained.net, mean=mean, std=std), trained.about
    if ":" in spec:
        return Classifier(_from_code(spec), mean=mean, std=std), {"arch": spec}
    if spec in PUBLIC:
        return public_classifier(spec, weights=weights, folder=folder, shape=shape)
    if spec.partition("/")[0] in FOREIGN and shape is not None:
        if weights is None and not pretrained:
            raise ConfigError(
                f"--model {spec}: give --weights FILE or --pretrained; untrained maps say nothing"
            )
        net = build(spec, shape, pretrained=pretrained and weights is None)
        if weights is not None:
            fill(net, weights, spec)
        return Classifier(net), {"arch": spec}
    raise ConfigError(
        f"--model {spec}: no such file or folder, and not of the form module:factory, torchvision/NAME or "
        f"timm/NAME, nor one of {', '.join(PUBLIC)}"
    )
