"""Resident memory of fitting on many images: python -m benchmarks.images_memory DATA COUNT [SIZE].

DATA is a dataset by name or a folder, COUNT the images of it that are used; pictures are cut to SIZE.
A network looks at every fortieth batch, and UPI-Grad takes three steps.
"""

from __future__ import annotations

import resource
import sys

import torch

import upi
from upi.data.preprocess import Preprocess
from upi.datasets.splits import load_parts
from upi.models.architectures import build


def main(data: str, count: int, size: int | None) -> None:
    """Print what was needed at the most."""
    torch.set_num_threads(1)
    parts = {"train": 0, "fit": count - 100, "select": 50, "test": 50}
    found = load_parts(data, parts, seed=0, size=None if size is None else Preprocess.imagenet(size))
    name = "cifar-resnet20" if size is None else "torchvision/mobilenet_v3_small"
    model = upi.Classifier(build(name, found.shape).eval())
    for number, (x, _) in enumerate(found["fit"].batches(32)):
        if number % 40 == 0:
            model.predict(x)
    upi.UPIGrad(model, eps=1.0, steps=3).fit(found["fit"].batches(16))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{data}: {count} images, {type(found['fit'].images).__name__}, {peak:.0f} MB at the most")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
