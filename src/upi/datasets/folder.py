"""A local folder: parquet files, or one sub-folder of images per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upi.data.preprocess import Preprocess
from upi.datasets.dataset import Dataset
from upi.datasets.decoding import decoded, open_table
from upi.datasets.pictures import Form


def in_order(names: list[str]) -> list[str]:
    """Class names as people count: numbers by value, anything else by letters."""
    numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name), name) if numbers else (0, name))


def _pictures(folder: Path) -> list[Path]:
    """Files below a folder that Pillow may read, in order."""
    from PIL import Image

    endings = Image.registered_extensions()
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())


@dataclass(frozen=True)
class Folder:
    """Images of a folder; all parts are cut from the same images.

    Attributes:
        path: With parquet files of the columns ``image`` and ``label``, or with a sub-folder for each class,
            directly or below ``train`` and ``test``.
    """

    path: Path
    official_test: bool = False
    standard: bool = False
    varied: bool = True

    def load(self, split: str, folder: Path | None, size: Preprocess | None) -> Dataset:
        """The parquet files whose name starts with the split, where there are any, else all images."""
        where = str(self.path)
        return decoded(self._table(split, where), self.path.name, where, form=Form(size=size))

    def _table(self, split: str, where: str) -> Any:
        files = sorted(str(file) for file in self.path.glob("*.parquet"))
        if files:
            chosen = [file for file in files if Path(file).name.startswith(split)] or files
            return open_table({"path": "parquet", "data_files": chosen, "split": "train"}, where)
        root = self.path / split if (self.path / split).is_dir() else self.path
        by_class = {place.name: _pictures(place) for place in root.iterdir() if place.is_dir()}
        by_class = {name: found for name, found in by_class.items() if found}
        if not by_class:
            return open_table({"path": "imagefolder", "data_dir": where, "split": "train"}, where)
        return self._listed(by_class)

    @staticmethod
    def _listed(by_class: dict[str, list[Path]]) -> Any:
        from datasets import ClassLabel, Dataset as Table, Features, Image

        names = in_order(list(by_class))
        content = {
            "image": [str(path) for name in names for path in by_class[name]],
            "label": [number for number, name in enumerate(names) for _ in by_class[name]],
        }
        features = Features({"image": Image(), "label": ClassLabel(names=names)})
        return Table.from_dict(content, features=features)
