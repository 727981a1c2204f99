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
        hub: Repository on the Hugging Face hub, or None where there is no free copy.
        splits: Our split to the hub's.
        shape: (channels, height, width) of every image; None for photographs of all sizes, which are
            brought to the size that the network takes.
        classes: Number of labels.
        official_test: Whether it has a test split of its own; otherwise all parts are cut from the
            same images.
    """

    name: str
    hub: str | None
    splits: Mapping[str, str]
    shape: tuple[int, int, int] | None
    classes: int
    official_test: bool = True

    def how_to_get(self) -> str:
        """What to do where the dataset is missing."""
        stems = ("train", "test") if self.official_test else ("val",)
        files = " and ".join(f"{self.name}/{stem}*.parquet" for stem in stems)
        reach = "" if self.hub is None else f"let this machine reach the hub (copy {self.hub}), or "
        return (
            f"dataset {self.name} is not here: {reach}put parquet files with the columns 'image' and "
            f"'label' into {files} of a folder and name that folder with --data-dir or UPI_DATA"
        )


SOURCES = {
    source.name: source
    for source in (
        Source("mnist", "ylecun/mnist", {"train": "train", "test": "test"}, (1, 28, 28), 10),
        Source("cifar10", "uoft-cs/cifar10", {"train": "train", "test": "test"}, (3, 32, 32), 10),
        Source(
            "tiny-imagenet", "zh-plus/tiny-imagenet", {"train": "train", "test": "valid"}, (3, 64, 64), 200
        ),
        # photographs with labels 0 to 999 in WordNet order, such as a sample of ImageNet's validation set
        Source("imagenet-sample", None, {}, None, 1000, official_test=False),
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
    for stem in STEMS[split if source.official_test else "test"]:
        for place in places:
            found = sorted(place.glob(f"{stem}*.parquet"))
            if found:
                return found
    return []
