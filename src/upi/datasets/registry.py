"""Sources of images by name: a module of this package that declares one is all that a new one takes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from upi.core.registry import Registry
from upi.data.preprocess import Preprocess
from upi.datasets.dataset import Dataset


class ImageSource(Protocol):
    """Where the images of one name come from."""

    @property
    def official_test(self) -> bool:
        """Whether there is a test split of its own; otherwise all parts are cut from the same images."""

    @property
    def standard(self) -> bool:
        """Whether it is a benchmark with recipes and all of its images in use, no sample or folder."""

    @property
    def varied(self) -> bool:
        """Whether its pictures may come in all sizes, so that the network's configuration decides."""

    def load(self, split: str, folder: Path | None, size: Preprocess | None) -> Dataset:
        """The images of ``train`` or ``test``; see ``upi.datasets.splits.load``."""


DATASETS: Registry[ImageSource] = Registry("dataset", "upi.datasets")
