"""The panel: networks of different kinds that defaults are chosen on, with their images.

Fitting and measuring take the fit and the select split; the test split takes no part in choices.
Self-trained networks come from the cache of trained classifiers (or are trained, minutes each); public
ones need ``UPI_DATA`` and the extra ``pretrained``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import upi
from upi.core.storage import write_atomic
from upi.core.types import Perturber
from upi.data.preprocess import Preprocess
from upi.datasets.dataset import Dataset
from upi.datasets.splits import load, load_parts, split
from upi.models.classifiers import public_classifier, trained_or_cached
from upi.models.public import PUBLIC
from upi.models.recipes import plan
from upi.models.training import Recipe

RESULTS = Path(__file__).parent / "results" / "panel"


@dataclass(frozen=True)
class Member:
    """A network with its images and the budget that a fit on it gets.

    Attributes:
        name, title: For files and for people.
        model: The classifier.
        fit, select: Images to fit on and to measure on.
        eps: l2 radius.
        steps, batch: Updates of UPI-Grad and images in each.
        per_image_steps: Updates of the per-image attack.
    """

    name: str
    title: str
    model: upi.Classifier
    fit: Dataset
    select: Dataset
    eps: float
    steps: int
    batch: int
    per_image_steps: int = 25

    def measure(self, perturber: Perturber) -> dict[str, float]:
        """Mean relative change of the simple-gradient map, and share of changed predictions."""
        rows = {"x": perturber}
        table = upi.evaluate(
            self.model, rows, self.select.batches(25), norm="l2", eps=self.eps, controls=False
        )
        return {
            "change": table.rows["x"].dissimilarity.mean,
            "flips": table.rows["x"].prediction_changed,
            "n": table.n_test,
        }

    def noise(self) -> dict[str, float]:
        """The same for noise of equal norm, mean over five patterns."""
        shape = tuple(self.fit.images.shape[1:])
        rows = [
            self.measure(upi.RandomPerturbation(self.model, eps=self.eps, draw=draw).pattern(shape))
            for draw in range(5)
        ]
        return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def _digits() -> Member:
    parts = split(load("mnist-sample"), {"train": 3000, "fit": 750, "select": 250, "test": 1000}, seed=0)
    trained, _ = trained_or_cached("small-cnn", parts["train"], parts["test"], Recipe())
    model = upi.Classifier(trained.net)
    return Member("digits", "digits CNN", model, parts["fit"], parts["select"], 2.0, 150, 32)


def _mnist(arch: str, title: str) -> Callable[[], Member]:
    def make() -> Member:
        parts = load_parts("mnist", {"fit": 1000, "select": 250, "train": None, "test": None}, seed=0)
        chosen = plan("mnist", arch)
        images = parts["train"].first(chosen.n_train) if chosen.n_train else parts["train"]
        trained, _ = trained_or_cached(arch, images, parts["test"], chosen.recipe, width=chosen.width)
        fit, select = parts["fit"].first(400), parts["select"].first(150)
        return Member(f"mnist-{arch}", title, upi.Classifier(trained.net), fit, select, 2.0, 120, 32)

    return make


def _public(name: str, eps: float, sizes: tuple[int, int], steps: int, batch: int) -> Callable[[], Member]:
    def make() -> Member:
        public = PUBLIC[name]
        n_fit, n_select = sizes
        cut = {"fit": n_fit, "select": n_select, "train": 0, "test": None}
        parts = load_parts(public.dataset, cut, seed=0, size=Preprocess.imagenet(public.size))
        model, _ = public_classifier(name, shape=parts.shape)
        few = 10 if public.size > 64 else 25
        return Member(name, public.title, model, parts["fit"], parts["select"], eps, steps, batch, few)

    return make


MEMBERS: dict[str, Callable[[], Member]] = {
    "digits": _digits,
    "mnist-vgg16": _mnist("vgg16", "VGG-16 ×0.25, MNIST"),
    "mnist-resnet18": _mnist("resnet18", "ResNet-18 ×0.25, MNIST"),
    "mnist-mobilenet_v2": _mnist("mobilenet_v2", "MobileNetV2 ×0.25, MNIST"),
    "mnist-vit": _mnist("vit", "ViT ×0.34, MNIST"),
    "cifar10-resnet32": _public("cifar10-resnet32", 0.5, (400, 150), 100, 32),
    "efficientnet-lite0": _public("efficientnet-lite0", 2.0, (96, 48), 20, 16),
}


class Record:
    """Results of one question on one network, kept as JSON after every line, so that a run can go on."""

    def __init__(self, question: str, member: Member) -> None:
        self.path = RESULTS / f"{question}-{member.name}.json"
        about = {
            "network": member.title,
            "eps": member.eps,
            "n_fit": len(member.fit),
            "n_select": len(member.select),
            "steps": member.steps,
            "batch": member.batch,
            "torch": torch.__version__.split("+")[0],
        }
        self.content: dict[str, Any] = {"about": about, "lines": {}}
        if self.path.exists():
            before = json.loads(self.path.read_text())
            self.content = before if before["about"] == about else self.content

    def line(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The line of this key, measured if it is not there yet."""
        lines: dict[str, dict[str, Any]] = self.content["lines"]
        if key not in lines:
            lines[key] = make()
            write_atomic(self.path, json.dumps(self.content, indent=1) + "\n")
            print(self.path.stem, key, lines[key], flush=True)
        return lines[key]


def records(question: str) -> dict[str, dict[str, Any]]:
    """Kept results of one question by network, in the order of the panel."""
    paths = {name: RESULTS / f"{question}-{name}.json" for name in MEMBERS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def main(measure: Callable[[str], None], page: Callable[[], str]) -> None:
    """Measure the networks that the command line names, on one thread; print the page where it names none."""
    if not sys.argv[1:]:
        print(page())
        return
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        measure(name)


def page_of(title: str, doc: str | None, table: str, conclusion: str) -> str:
    """A benchmark's page: its title, its docstring after the first line, its table, and what that says."""
    return "\n".join([f"# {title}", "", (doc or "").split("\n\n", 1)[1], table, conclusion])
