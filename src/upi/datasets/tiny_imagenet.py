"""Tiny-ImageNet: 100,000 + 10,000 pictures of 64 x 64 coloured pixels, 200 classes."""

from upi.datasets.hub import HubDataset
from upi.datasets.registry import DATASETS

TINY_IMAGENET = HubDataset(
    "tiny-imagenet", "zh-plus/tiny-imagenet", (3, 64, 64), 200, {"train": "train", "test": "valid"}
)
DATASETS.add(TINY_IMAGENET.name, "Tiny-ImageNet", order=5)(TINY_IMAGENET)
