"""Images by name, cut into disjoint parts.

Every name is a file of this package; any other name is a local folder. All but ``mnist-sample`` are read by
Hugging Face ``datasets``. Images of all sizes are resized and cut as the network expects them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from upi.core.errors import ConfigError
from upi.core.memory import together
from upi.data.preprocess import Preprocess
from upi.data.shape import Shape
from upi.datasets.dataset import Dataset
from upi.datasets.folder import Folder
from upi.datasets.registry import DATASETS, ImageSource

#: Images that are looked at together at the least.
FEWEST = 8


def source_of(name: str) -> ImageSource:
    """Where the images of a name come from.

    Raises:
        ConfigError: The name is neither known nor a folder.
    """
    if name in DATASETS:
        return DATASETS[name]
    if not Path(name).is_dir():
        raise ConfigError(
            f"unknown dataset {name!r}: expected {DATASETS.list()}, or a folder with parquet files "
            "(columns 'image' and 'label') or with one sub-folder of images per class"
        )
    return Folder(Path(name))


def load(
    name: str, *, split: str = "train", folder: Path | None = None, size: Preprocess | None = None
) -> Dataset:
    """Load a dataset by name or folder.

    Args:
        name: A name of ``upi.datasets.registry.DATASETS``, or a folder with parquet files or images.
        split: ``train`` or ``test``; of a folder, the parquet files whose name starts with it
            are read, where there are any.
        folder: Where local copies of named datasets lie; ``UPI_DATA`` by default.
        size: How pictures are resized and cut; by default they must be of one size.

    Raises:
        ConfigError: The name is neither known nor a folder.
        DataError: The content is not images with labels of one size, or cannot be found; the
            message says how to get it.
    """
    return source_of(name).load(split, folder, size)


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

    def together(self, part: str, most: int = 250) -> int:
        """Images of a part that go through a network together: ``most`` small ones, fewer large ones."""
        return max(FEWEST, together(self.parts[part].images.shape[1:], most))

    @property
    def shape(self) -> Shape:
        """Images and classes."""
        return self.parts["test"].shape

    def labelled(self, names: Sequence[str]) -> Parts:
        """The same images with the labels of a network that calls its classes by these names.

        Names are compared without regard to case; where some class has no such name, the images keep the
        order of their own classes, which must be as many.

        Raises:
            ConfigError: There are more or fewer classes than names, and the names do not match.
        """
        places = {name.strip().lower(): number for number, name in enumerate(names)}
        found = [places.get(name.strip().lower()) for name in self.classes]
        if any(place is None for place in found):
            if len(names) != len(self.classes):
                raise ConfigError(
                    f"the network tells {len(names)} classes apart ({', '.join(names[:3])}, ...), the images "
                    f"have {len(self.classes)} ({', '.join(self.classes[:3])}, ...): call the images' "
                    "classes by the network's names"
                )
            return self
        index = torch.tensor(found)
        parts = {
            part: replace(data, labels=index[data.labels], classes=tuple(names))
            for part, data in self.parts.items()
        }
        return replace(self, parts=parts, classes=tuple(names))


def load_parts(
    name: str,
    sizes: Mapping[str, int | None],
    *,
    seed: int,
    folder: Path | None = None,
    size: Preprocess | None = None,
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
    if not source_of(name).official_test:
        data = load(name, split="test" if only_test else "train", folder=folder, size=size)
        parts = split(
            data, _whole({k: sizes[k] for k in ("train", "fit", "select", "test")}, data), seed=seed
        )
        return Parts(data.name, parts, data.fingerprint(), data.classes)
    test = load(name, split="test", folder=folder, size=size)
    parts = split(test, _whole({"test": sizes["test"]}, test), seed=seed)
    if only_test:
        empty = test.first(0)
        whole = {"train": empty, "fit": empty, "select": empty, **parts}
        return Parts(name, whole, test.fingerprint(), test.classes)
    data = load(name, folder=folder, size=size)
    parts |= split(data, _whole({k: sizes[k] for k in ("fit", "select", "train")}, data), seed=seed)
    return Parts(name, parts, _joined(data, test), data.classes)


def _whole(sizes: Mapping[str, int | None], data: Dataset) -> dict[str, int]:
    """Sizes with None replaced by what the others leave."""
    rest = max(0, len(data) - sum(size for size in sizes.values() if size is not None))
    return {part: rest if size is None else size for part, size in sizes.items()}


def _joined(first: Dataset, second: Dataset) -> str:
    return hashlib.sha256((first.fingerprint() + second.fingerprint()).encode()).hexdigest()
