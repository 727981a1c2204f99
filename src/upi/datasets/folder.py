"""A local folder: parquet files, or one sub-folder of images per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upi.datasets.dataset import Dataset
from upi.datasets.decoding import decoded, open_table
from upi.datasets.pictures import Form


@dataclass(frozen=True)
class Folder:
    """Images of a folder; all parts are cut from the same images.

    Attributes:
        path: With parquet files of the columns ``image`` and ``label``, or with sub-folders.
    """

    path: Path
    official_test: bool = False
    standard: bool = False

    def load(self, split: str, folder: Path | None, size: int | None) -> Dataset:
        """The parquet files whose name starts with the split, where there are any, else all images."""
        files = sorted(str(file) for file in self.path.glob("*.parquet"))
        chosen = [file for file in files if Path(file).name.startswith(split)] or files
        kind: dict[str, Any] = {"path": "parquet", "data_files": chosen}
        if not files:
            kind = {"path": "imagefolder", "data_dir": str(self.path)}
        where = str(self.path)
        return decoded(
            open_table({**kind, "split": "train"}, where), self.path.name, where, form=Form(size=size)
        )
