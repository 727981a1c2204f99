"""CIFAR-10: 50,000 + 10,000 pictures of 32 x 32 coloured pixels."""

from upi.datasets.hub import HubDataset
from upi.datasets.registry import DATASETS

CIFAR10 = HubDataset("cifar10", "uoft-cs/cifar10", (3, 32, 32), 10)
DATASETS.add(CIFAR10.name, "CIFAR-10", order=4)(CIFAR10)
