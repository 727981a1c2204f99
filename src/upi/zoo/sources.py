"""Where the named datasets come from: local parquet files, else the public hub copies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A dataset on the hub, and what its images must look like.

    Attributes:
        name: The name users give.
        hub: Repository on the Hugging Face hub.
        splits: Our split to the hub's.
        shape: (channels, height, width) of every image.
        classes: Number of labels.
    """

    name: str
    hub: str
    splits: Mapping[str, str]
    shape: tuple[int, int, int]
    classes: int

    def how_to_get(self) -> str:
        """What to do where the dataset is missing."""
        return (
            f"dataset {self.name} is not here. Either let this machine reach the hub (copy {self.hub}), or "
            f"put parquet files with the columns 'image' and 'label' into {self.name}/train*.parquet and "
            f"{self.name}/test*.parquet of a folder and name that folder with --data-dir or UPI_DATA"
        )


SOURCES = {
    source.name: source
    for source in (
        Source("mnist", "ylecun/mnist", {"train": "train", "test": "test"}, (1, 28, 28), 10),
        Source("cifar10", "uoft-cs/cifar10", {"train": "train", "test": "test"}, (3, 32, 32), 10),
        Source(
            "tiny-imagenet", "zh-plus/tiny-imagenet", {"train": "train", "test": "valid"}, (3, 64, 64), 200
        ),
    )
}
#: File names of a split, by preference; Tiny-ImageNet's labelled test images are its validation split.
STEMS = {"train": ("train",), "test": ("test", "valid", "val")}


def local_files(source: Source, split: str, folder: Path | None) -> list[Path]:
    """Parquet files of a split under ``folder`` or ``UPI_DATA``; none where there are none."""
    root = folder or (Path(os.environ["UPI_DATA"]) if os.environ.get("UPI_DATA") else None)
    if root is None:
        return []
    places = [root / source.name, *([root] if root.name == source.name else [])]
    for stem in STEMS[split]:
        for place in places:
            found = sorted(place.glob(f"{stem}*.parquet"))
            if found:
                return found
    return []
