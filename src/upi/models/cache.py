"""Training networks of the zoo, and keeping them for the next run."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import torch
from platformdirs import user_cache_path
from torch import nn

from upi.core.distributed import from_lead
from upi.core.storage import write_atomic
from upi.core.types import Progress
from upi.data.shape import Shape
from upi.datasets.dataset import Dataset
from upi.models.architectures import build
from upi.models.trained import Trained, load_trained
from upi.models.training import Recipe, accuracy, train, usable_precision


def cache_folder() -> Path:
    """Where trained classifiers are kept: ``UPI_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("UPI_CACHE") or user_cache_path("upi-xai"))


def usable(folder: Path) -> bool:
    """Whether files can be kept in a folder of the cache, which is made; a warning says where not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        warnings.warn(
            f"nothing can be kept in the cache {folder} ({error.strerror}): training that is cut short "
            "begins again, and the classifier is trained anew next time. UPI_CACHE names another place",
            stacklevel=3,
        )
        return False


def new_net(
    arch: str, shape: Shape, *, width: float = 1.0, pretrained: bool = False, seed: int = 0
) -> nn.Module:
    """An untrained network of the zoo or of a library, initial weights fixed by the seed.

    Args:
        arch: One of ``NETS``, ``torchvision/NAME`` or ``timm/NAME``.
        shape: Images and classes.
        width: Multiplier of every layer's width, for ``NETS``.
        pretrained: Published weights, for libraries; the last layer is new where the classes differ.
        seed: Fixes what is not published.

    Raises:
        ConfigError: The name is unknown, or an option does not fit it.
        ModelError: Weights cannot be fetched, or the library is not installed.
    """
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
        arch, width, pretrained: As for ``upi.models.architectures.build``.
        data, test: Training images, and those that accuracy is measured on.
        recipe, device, checkpoint, progress: As for ``upi.models.training.train``.
    """
    begin = time.perf_counter()
    if checkpoint is not None and not usable(checkpoint.parent):
        checkpoint = None
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
        "precision": usable_precision(recipe.precision, device),
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

    Training that was cut short goes on where its last epoch ended. Of several workers the leading one trains.

    Returns:
        The classifier, and whether it came from the cache.
    """
    return from_lead(lambda: _trained_or_cached(arch, data, test, recipe, width, device, progress))


def _trained_or_cached(
    arch: str,
    data: Dataset,
    test: Dataset,
    recipe: Recipe,
    width: float,
    device: torch.device | str,
    progress: Progress | None,
) -> tuple[Trained, bool]:
    folder = cache_folder() / "classifiers"
    path = folder / f"{cache_key(arch, width, recipe, data, test)}.safetensors"
    took = path.with_suffix(".seconds")  # beside the file, which is the same however long it took
    if path.exists():
        found = load_trained(path)
        seconds = float(took.read_text()) if took.exists() else found.about.get("seconds", 0.0)
        return replace(found, about={**found.about, "seconds": seconds}), True
    kept = usable(folder)
    trained = train_new(
        arch,
        data,
        test,
        recipe,
        width=width,
        device=device,
        checkpoint=path.with_suffix(".checkpoint") if kept else None,
        progress=progress,
    )
    if kept:
        write_atomic(took, str(trained.about["seconds"]))
        trained.save(path)
    return trained, False
