"""Datasets of fixed content: local parquet files, else the public hub copy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upi.core.errors import ConfigError, DataError
from upi.data.preprocess import Preprocess
from upi.datasets.dataset import Dataset
from upi.datasets.decoding import decoded, open_table
from upi.datasets.pictures import Form

#: File names of a split, by preference; Tiny-ImageNet's labelled test images are its validation split.
STEMS = {"train": ("train",), "test": ("test", "valid", "val")}


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the hub, and what its images must look like.

    Attributes:
        name: The name users give.
        hub: Repository on the Hugging Face hub, or None where there is no free copy.
        shape: (channels, height, width) of every image; None for photographs of all sizes, which are
            brought to the size that the network takes.
        classes: Number of labels.
        splits: Our split to the hub's.
        official_test: Whether it has a test split of its own; otherwise all parts are cut from the
            same images.
    """

    name: str
    hub: str | None
    shape: tuple[int, int, int] | None
    classes: int
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    official_test: bool = True

    @property
    def standard(self) -> bool:
        """True."""
        return True

    def how_to_get(self) -> str:
        """What to do where the dataset is missing."""
        stems = ("train", "test") if self.official_test else ("val",)
        files = " and ".join(f"{self.name}/{stem}*.parquet" for stem in stems)
        reach = "" if self.hub is None else f"let this machine reach the hub (copy {self.hub}), or "
        return (
            f"dataset {self.name} is not here: {reach}put parquet files with the columns 'image' and "
            f"'label' into {files} of a folder and name that folder as data directory, or in UPI_DATA"
        )

    def files(self, split: str, folder: Path | None) -> list[Path]:
        """Parquet files of a split under ``folder`` or ``UPI_DATA``; none where there are none."""
        root = folder or (Path(os.environ["UPI_DATA"]) if os.environ.get("UPI_DATA") else None)
        if root is None:
            return []
        places = [root / self.name, *([root] if root.name == self.name else [])]
        for stem in STEMS[split if self.official_test else "test"]:
            for place in places:
                files = sorted(place.glob(f"{stem}*.parquet"))
                if files:
                    return files
        return []

    @property
    def varied(self) -> bool:
        """Whether its pictures come in all sizes."""
        return self.shape is None

    def load(self, split: str, folder: Path | None, size: Preprocess | None) -> Dataset:
        """The images of a split."""
        if self.shape is None and size is None:
            raise ConfigError(
                f"{self.name} holds photographs of all sizes: name a network of known size, such as "
                "efficientnet-lite0",
                options=("size",),
            )
        files = self.files(split, folder)
        if files:
            where = str(files[0].parent)
            kind: dict[str, Any] = {"path": "parquet", "data_files": [str(f) for f in files]}
            return self._decoded(open_table({**kind, "split": "train"}, where), where, size)
        if self.hub is None:
            raise DataError(self.how_to_get(), options=("data_dir",))
        where = f"hub copy {self.hub}"
        try:
            table = open_table({"path": self.hub, "split": self.splits[split]}, where)
        except DataError as error:
            answer = str(error.__cause__)[:300]
            raise DataError(
                f"{self.how_to_get()} (the hub answered: {answer})", options=("data_dir",)
            ) from error
        return self._decoded(table, where, size)

    def _decoded(self, table: Any, where: str, size: Preprocess | None) -> Dataset:
        colour = self.shape is None or self.shape[0] == 3  # photographs are coloured
        if size is not None:
            form = Form(None, size, colour or size.channels == 3)
        else:
            form = Form(self.shape, None, colour)
        return decoded(table, self.name, where, form=form, classes=self.classes)
