"""Photographs of ImageNet's classes that a user provides, labels 0 to 999 in WordNet order."""

from upi.datasets.hub import HubDataset
from upi.datasets.registry import DATASETS

IMAGENET_SAMPLE = HubDataset("imagenet-sample", None, None, 1000, {}, official_test=False)
DATASETS.add(IMAGENET_SAMPLE.name, "photographs of ImageNet's classes, from a folder of yours", order=6)(
    IMAGENET_SAMPLE
)
