"""MNIST: 60,000 + 10,000 digits of 28 x 28 grey pixels."""

from upi.datasets.hub import HubDataset
from upi.datasets.registry import DATASETS

MNIST = HubDataset("mnist", "ylecun/mnist", (1, 28, 28), 10)
DATASETS.add(MNIST.name, "MNIST", order=2)(MNIST)
