"""Pictures to look at, chosen by rule: the most, the median and the least changed map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from upi import dissimilarity as dissimilarities
from upi import saliency as maps
from upi.classifier import Classifier
from upi.errors import ConfigError
from upi.evaluation.result import Column
from upi.loading import samples
from upi.types import Dissimilarity, Loader, Perturber, SaliencyMap

#: Share of the test images that change less than the example.
RULES = {"least": 0.0, "median": 0.5, "most": 1.0}


@dataclass(frozen=True)
class Example:
    """One image before and after a perturbation, with both maps."""

    row: str  # name of the perturbation
    rule: str  # key of RULES
    sample: int  # number of the image in the test loader
    label: int
    prediction: int  # after the perturbation
    value: float  # dissimilarity of the two maps shown
    x: Tensor  # (C, H, W) in [0, 1]
    perturbed: Tensor  # (C, H, W) in [0, 1]
    clean_map: Tensor  # (H, W)
    perturbed_map: Tensor  # (H, W)


def pick(column: Column) -> dict[str, int]:
    """Positions, among the eligible images, of the least, median and most changed maps."""
    order = np.argsort(column["dissimilarity"], kind="stable")
    return {rule: int(order[round(share * (len(order) - 1))]) for rule, share in RULES.items()}


def _image(loader: Loader, number: int) -> Tensor:
    seen = 0
    for sample in samples(loader):
        if number < seen + len(sample.x):
            return sample.x[number - seen][None]
        seen += len(sample.x)
    raise ConfigError(f"the loader has only {seen} images, number {number} was asked for")


def examples(
    model: Classifier | nn.Module,
    perturbations: Mapping[str, Perturber],
    loader: Loader,
    per_sample: Mapping[str, Column],
    *,
    saliency: str | SaliencyMap = "gradient",
    dissimilarity: str | Dissimilarity = "relative_l2",
    preset: str = "protocol",
) -> list[Example]:
    """Before and after, for each perturbation and rule.

    Args:
        model, perturbations, loader, saliency, dissimilarity, preset: As given to ``evaluate``.
        per_sample: The figures of that evaluation, by which the images are chosen; the loader
            must yield the images in the same order again.

    Raises:
        ConfigError: The loader gives other images than it gave to the evaluation.
    """
    classifier, chosen = Classifier.wrap(model), maps.resolve(saliency, paper=preset == "paper")
    change = dissimilarities.resolve(dissimilarity)
    found = []
    with classifier.frozen():
        for name, perturber in perturbations.items():
            column = per_sample[name]
            for rule, position in pick(column).items():
                number = int(column["sample"][position])
                x = classifier.place(_image(loader, number))
                target = torch.as_tensor(column["target"][position : position + 1]).to(x.device)
                if int(classifier.predict(x)[0]) != int(target[0]):
                    raise ConfigError(f"image {number} differs from the evaluated one: the loader shuffles")
                moved = classifier.place(perturber(x.clone(), target))
                both = maps.explain(chosen, classifier, torch.cat([x, moved]), target.repeat(2)).cpu()
                found.append(
                    Example(
                        name,
                        rule,
                        number,
                        int(column["label"][position]),
                        int(classifier.predict(moved)[0]),
                        float(change(both[:1], both[1:])),
                        x[0].cpu(),
                        moved[0].cpu(),
                        both[0],
                        both[1],
                    )
                )
    return found
