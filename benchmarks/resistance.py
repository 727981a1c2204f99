"""Why a network resists: what surrogate, work, smoothing, price and step size are worth.

Needs the run folders of ``upi reproduce mnist`` and ``upi reproduce cifar10`` (for their VGG-16) and
the datasets (``UPI_DATA`` or the hub):

    python benchmarks/resistance.py > docs/resistance.md

Perturbations are fitted on the fitting images of the reproduction and measured on its first 200
test images, correctly classified ones only; one fit each, seed 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

import upi
from upi.attacks.base import default_sigma
from upi.attacks.support.objective import MapChange
from upi.attacks.support.rows import ExplainedImages, GradientRows, RowPlan
from upi.core.types import Perturber
from upi.datasets.splits import load_parts
from upi.evaluation import Row
from upi.linalg import gram, power
from upi.linalg.operator import MatrixRows
from upi.models.classifiers import load_trained
from upi.network import activations
from upi.perturbation.pattern import Perturbation

HEAD = """# Why a network resists, measured

    python benchmarks/resistance.py > docs/resistance.md

Quarter-width VGG-16 of `upi reproduce mnist` and `upi reproduce cifar10`, simple gradient; fitted on the
reproduction's fitting images, measured on the correctly classified of its first 200 test images; one
fit each, seed 0; {threads}. UPI-Grad: 80 steps of 32 images unless said otherwise, price 0.5.

Lines on UPI-PCA are of rows of the surrogate, as long as they are, and of the best of ±v₁ … ±v₅,
without refinement."""
#: UPI-PCA as it was when these tables were made: one form of the rows, as long as they are.
SINGULAR = {"surrogate": 20.0, "row_scale": "none", "components": 5, "refinements": 0}
SIZES = {"fit": 1000, "select": 250, "train": 0, "test": 200}


class Bench:
    """VGG-16 of one reproduction with its images."""

    def __init__(self, dataset: str, eps: str) -> None:
        self.dataset, self.eps = dataset, eps
        parts = load_parts(dataset, SIZES, seed=0)
        self.fit, self.select, self.test = parts["fit"], parts["select"], parts["test"].batches(100)
        path = Path("runs") / f"reproduce-{dataset}" / "classifiers" / "vgg16.safetensors"
        self.model = upi.Classifier(load_trained(path).net)

    def head(self, title: str, options: str) -> None:
        print(f"\n## {title}\n\n| {options} | map change | changed predictions |\n|---|---|---|", flush=True)

    def row(self, what: str, perturber: Perturber, norm: str = "l2", eps: str | None = None) -> Row:
        """Measure a perturbation and print its line."""
        table = upi.evaluate(
            self.model, {"p": perturber}, self.test, norm=norm, eps=eps or self.eps, controls=("random",)
        )
        found = table.rows["p"]
        self.noise = table.rows["random"].dissimilarity.mean
        print(f"| {what} | {found.dissimilarity.mean:.3f} | {found.prediction_changed:.1%} |", flush=True)
        return found

    def grad(self, what: str, *, images: int = 400, batch: int = 32, **options: Any) -> None:
        """Fit UPI-Grad with options that differ from 80 steps in the l2 ball, and measure it."""
        chosen: dict[str, Any] = {"norm": "l2", "eps": self.eps, "steps": 80, **options}
        attack = upi.UPIGrad(self.model, clip=True, prediction_price=0.5, **chosen)
        found = attack.fit(self.fit.first(images).batches(batch))
        self.row(what, found, chosen["norm"], chosen["eps"])

    def noise_line(self) -> None:
        print(f"\nNoise of equal norm: {self.noise:.3f}.", flush=True)


@contextmanager
def pooling(share: float | None) -> Iterator[None]:
    """Sharpness of max-pooling as a share of beta; None leaves max-pooling as it is."""
    if share is None:
        with patch.object(activations.Smooth, "max_pool2d", lambda self, *a, **k: F.max_pool2d(*a, **k)):
            yield
    else:
        with patch.object(activations, "POOLING", share):
            yield


def surrogates(bench: Bench) -> None:
    bench.head(f"Surrogate: UPI-Grad, {bench.dataset}, l2 {bench.eps}", "softplus beta, max-pooling")
    for beta, share in ((20, None), (20, 1.0), (20, 0.5), (10, 1.0), (10, 0.5), (5, 1.0), (40, None)):
        words = "as it is" if share is None else f"softmax({beta * share:g})"
        with pooling(share):
            bench.grad(f"{beta}, {words}", surrogate=float(beta))
    bench.noise_line()


def work(bench: Bench) -> None:
    bench.head(f"Work and step rule: UPI-Grad, {bench.dataset}, l2 {bench.eps}", "steps x batch, images")
    bench.grad("80 x 32, 400")
    bench.grad("120 x 32, 400", steps=120)
    bench.grad("300 x 64, 1000", steps=300, batch=64, images=1000)
    for momentum, step_size in ((0.0, 2.0), (0.9, 1.0), (0.9, 2.0)):
        words = f"120 x 32, 400, momentum {momentum}, step_size {step_size:g}"
        bench.grad(words, steps=120, momentum=momentum, step_size=step_size)
    bench.noise_line()


def cube(bench: Bench, eps: str) -> None:
    bench.head(f"l-inf ball: UPI-Grad, {bench.dataset}, l-inf {eps}", "momentum")
    for momentum in (0.0, 0.5, 0.9):
        bench.grad(f"{momentum}", norm="linf", eps=eps, momentum=momentum)
    bench.noise_line()


def rows_of_g(bench: Bench) -> None:
    bench.head(f"Smoothing of the rows: UPI-PCA, {bench.dataset}, l2 {bench.eps}", "norm of Z / eps")
    fit, select = bench.fit.first(400).batches(32), bench.select.first(60).batches(60)
    ball, dim = upi.Ball("l2", bench.eps), bench.fit.images[0].numel()

    def find(**options: Any) -> Perturbation:
        return upi.UPIPCA(bench.model, eps=bench.eps, **{**SINGULAR, **options}).fit(fit, select=select)

    for share in (0.25, 0.5, 1.0, 1.5):
        bench.row(f"{share}", find(draws=4, clip=True, sigma=default_sigma(ball, dim, share)))
    bench.row("curvature form, no Z", find(rows="curvature", solver="sketch", rank=16))
    bench.noise_line()


def price(bench: Bench) -> None:
    bench.head(f"Price on predictions: per-image attack, {bench.dataset}, l2 {bench.eps}", "price")
    for value in (0.0, 0.5):
        attack = upi.PerImageAttack(bench.model, eps=bench.eps, steps=20, prediction_price=value)
        bench.row(f"{value}", attack)
    bench.noise_line()


def power_steps(bench: Bench) -> None:
    """Share of sigma_1^2 that the stochastic power method captures, by first step."""
    attack = upi.UPIPCA(bench.model, eps=bench.eps, clip=True, draws=1)
    loader, objective = bench.fit.first(400).batches(32), MapChange(attack.map, attack.change)
    with attack.fitting(loader, attack.beta("auto"), objective) as (surrogate, first):
        plan = RowPlan(attack.deviation(first[0].numel()), 1, 0, True)
        images = ExplainedImages(surrogate, objective, loader)
        rows = GradientRows(images, rows="gradient", plan=plan)
        matrix = torch.cat(list(rows.blocks()))
    norms, operator = matrix.norm(dim=1), MatrixRows(matrix, batch_size=32)
    top = float(gram(operator, components=1).values[0])
    print(f"\n## Power method: step size, {bench.dataset}, {len(matrix)} rows of G\n")
    print(
        f"Row norms: median {norms.median():.1f}, largest {norms.max():.1f}; the largest row holds ", end=""
    )
    print(f"{norms.max() ** 2 / norms.square().sum():.0%} of the sum of squares.\n")
    print("Captured share of the top singular value squared (seed 0):\n")
    print("| step_size | 64 updates | 256 | 1024 |\n|---|---|---|---|")
    for size in (10.0, 3.0, 1.0, 0.3):
        shares = [float(power(operator, steps=n, step_size=size).values[0]) / top for n in (64, 256, 1024)]
        print(f"| {size:g} |" + "".join(f" {share:.2f} |" for share in shares), flush=True)


def main() -> None:
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count != 1)}, torch {torch.__version__}"
    print(HEAD.format(threads=threads))
    mnist, cifar = Bench("mnist", "2.0"), Bench("cifar10", "1.0")
    surrogates(mnist)
    surrogates(cifar)
    work(mnist)
    cube(mnist, "0.1")
    rows_of_g(mnist)
    price(cifar)
    power_steps(mnist)
    power_steps(cifar)


if __name__ == "__main__":
    main()
