"""Pictures to look at, chosen by rule: the most, the median and the least changed map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from upi import dissimilarity as dissimilarities, saliency as maps
from upi.attacks.protocol import Protocol, resolve
from upi.core.errors import ConfigError
from upi.core.types import Dissimilarity, Loader, Perturber, SaliencyMap
from upi.data.eligibility import correctly_classified, explained, shown_label
from upi.data.images import samples
from upi.evaluation.result import Column
from upi.network.classifier import Classifier

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
    preset: str | Protocol = "protocol",
) -> list[Example]:
    """Before and after, for each perturbation and rule.

    Args:
        model, perturbations, loader, saliency, dissimilarity, preset: As given to ``evaluate``.
        per_sample: The figures of that evaluation, by which the images are chosen; the loader
            must yield the images in the same order again.

    Raises:
        ConfigError: The loader gives other images than it gave to the evaluation.
    """
    show = _Camera(Classifier.wrap(model), loader, saliency, dissimilarity, preset)
    found = []
    for name, perturber in perturbations.items():
        column = per_sample[name]
        for rule, position in pick(column).items():
            number, target = int(column["sample"][position]), int(column["target"][position])
            shot = show(name, perturber, number, rule, int(column["label"][position]))
            if show.target(number) != target:
                raise ConfigError(f"image {number} differs from the evaluated one: the loader shuffles")
            found.append(shot)
    return found


def compare(
    model: Classifier | nn.Module,
    perturbations: Mapping[str, Perturber],
    loader: Loader,
    places: Sequence[int],
    *,
    saliency: str | SaliencyMap = "gradient",
    dissimilarity: str | Dissimilarity = "relative_l2",
    preset: str | Protocol = "protocol",
) -> list[Example]:
    """The same images under every perturbation.

    Args:
        model, perturbations, loader, saliency, dissimilarity, preset: As given to ``evaluate``.
        places: Positions among the eligible (correctly classified) images, as in the columns of
            an evaluation.
    """
    show = _Camera(Classifier.wrap(model), loader, saliency, dissimilarity, preset)
    eligible = show.eligible()
    return [
        show(name, perturber, eligible[place][0], f"image {number + 1}", eligible[place][1])
        for number, place in enumerate(places)
        for name, perturber in perturbations.items()
    ]


class _Camera:
    """Takes before-and-after pictures of single images of a loader."""

    def __init__(
        self,
        model: Classifier,
        loader: Loader,
        saliency: str | SaliencyMap,
        dissimilarity: str | Dissimilarity,
        preset: str | Protocol,
    ) -> None:
        self.model, self.loader = model, loader
        self.map = maps.resolve(saliency, paper=resolve(preset).paper_maps)
        self.change = dissimilarities.resolve(dissimilarity)

    def eligible(self) -> list[tuple[int, int]]:
        """(number, label) of the correctly classified images whose map is not zero."""
        places, seen = [], 0
        for sample in samples(self.loader):
            x = self.model.place(sample.x)
            target = self.model.predict(x)
            label = shown_label(sample, target)
            counted = explained(maps.explain(self.map, self.model, x, target))
            correct = correctly_classified(self.model, sample, target)
            if correct is not None:
                counted &= correct
            for place in counted.nonzero()[:, 0].tolist():
                places.append((seen + place, int(label[place])))
            seen += len(x)
        return places

    def target(self, number: int) -> int:
        """The clean prediction of an image."""
        return int(self.model.predict(self.model.place(_image(self.loader, number)))[0])

    def __call__(self, name: str, perturber: Perturber, number: int, rule: str, label: int) -> Example:
        with self.model.frozen():
            x = self.model.place(_image(self.loader, number))
            target = self.model.predict(x)
            moved = self.model.place(perturber(x.clone(), target))
            both = maps.explain(self.map, self.model, torch.cat([x, moved]), target.repeat(2)).cpu()
            prediction = int(self.model.predict(moved)[0])
        value = float(self.change(both[:1], both[1:]))
        pictures = (x[0].cpu(), moved[0].cpu(), both[0], both[1])
        return Example(name, rule, number, label, prediction, value, *pictures)
