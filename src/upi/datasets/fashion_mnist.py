"""Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28 x 28 grey pixels."""

from upi.datasets.hub import HubDataset
from upi.datasets.registry import DATASETS

FASHION_MNIST = HubDataset("fashion-mnist", "zalando-datasets/fashion_mnist", (1, 28, 28), 10)
DATASETS.add(FASHION_MNIST.name, "Fashion-MNIST", order=3)(FASHION_MNIST)
