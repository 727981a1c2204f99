"""The whole job against the paper's procedure: the same network, data and strength.

The paper's procedure takes gradients one image at a time with autograd's own derivatives and explains
the clean image each time. UPI-PCA stores them all and decomposes the matrix with NumPy; UPI-Grad
averages them over a minibatch and takes a constant step.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import upi
from benchmarks.bench_strength import BATCH
from benchmarks.common import Scale, timed
from benchmarks.digits import EPS, NETWORKS, classifier, parts, strength
from upi.attacks.base import default_sigma
from upi.attacks.support.gradients import attack_gradient
from upi.attacks.support.objective import MapChange, explained_batch
from upi.core.seeding import generator
from upi.network.smooth import SURROGATE_BETA
from upi.perturbation.ball import Ball

OBJECTIVE = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2)
BALL = Ball("l2", EPS)


def one_gradient(model: upi.Classifier, x: Tensor, delta: Tensor) -> Tensor:
    """Attack gradient of one image (1, C, H, W), clean map included."""
    target = model.predict(x)
    with model.frozen():
        surrogate = model.surrogate(SURROGATE_BETA, fast=False)
        batch = explained_batch(OBJECTIVE, surrogate, x, target)
        return attack_gradient(surrogate, OBJECTIVE, batch, x + delta).gradient


def paper_pca(model: upi.Classifier, x: Tensor) -> Tensor:
    """Rows one at a time, stored, decomposed, the better sign on the select split; (C, H, W)."""
    sigma = default_sigma(BALL, x[0].numel(), 0.5)
    rng = generator(0, "paper")
    rows = [
        one_gradient(model, one[None], sigma * torch.randn(one[None].shape, generator=rng)).flatten()
        for one in x
    ]
    vector = np.linalg.svd(torch.stack(rows).double().numpy(), full_matrices=False)[2][0]
    delta = EPS * torch.from_numpy(vector).float().view_as(x[0])
    return max((delta, -delta), key=lambda d: strength(model, OBJECTIVE.saliency, d))


def paper_ascent(
    model: upi.Classifier, x: Tensor, goal: float, *, size: float = 0.1, most: int = 400, every: int = 5
) -> tuple[Tensor, float, int]:
    """Until the goal is reached on the select split: (perturbation, seconds, steps); looks are free."""
    delta = BALL.sample((1, *x.shape[1:]), generator(0, "start"))
    spent, rng = 0.0, generator(0, "order")
    for step in range(1, most + 1):
        start = time.perf_counter()
        some = x[torch.randint(0, len(x), (BATCH,), generator=rng)]
        mean = torch.stack([one_gradient(model, one[None], delta) for one in some]).mean(0)
        delta = BALL.project(delta + size * EPS * BALL.steepest(mean))
        spent += time.perf_counter() - start
        if step % every == 0 and strength(model, OBJECTIVE.saliency, delta[0]) >= goal:
            return delta[0], spent, step
    return delta[0], spent, most


@pytest.mark.parametrize("arch", NETWORKS)
@pytest.mark.parametrize("method", ["upi-pca", "upi-grad"])
def test_job(benchmark: BenchmarkFixture, method: str, arch: str, scale: Scale) -> None:
    model = classifier(arch, epochs=scale(4, 1))
    count = scale(750, 4)
    fit = parts()["fit"].first(count)
    assert isinstance(fit.images, Tensor)
    select = parts()["select"].batches(125)
    steps = scale(40, 2)

    def ours() -> upi.Perturbation:
        if method == "upi-pca":
            one_pass: dict[str, Any] = {"surrogate": 20.0, "row_scale": "none", "refinements": 0}
            attack = upi.UPIPCA(model, eps=EPS, draws=1, components=1, **one_pass)
            return attack.fit(fit.batches(50), select=select)
        return upi.UPIGrad(model, eps=EPS, steps=steps).fit(fit.batches(BATCH))

    facts: dict[str, Any] = {"table": "job", "method": method, "arch": arch, "images": count}
    found = timed(benchmark, ours, rounds=scale.rounds(3), **facts)
    reached = strength(model, OBJECTIVE.saliency, found.delta)
    if method == "upi-pca":
        start = time.perf_counter()
        theirs = paper_pca(model, fit.images)
        spent, took = time.perf_counter() - start, 1
    else:
        theirs, spent, took = paper_ascent(model, fit.images, reached, most=scale(200, 2))
    benchmark.extra_info |= {
        "strength": reached,
        "paper seconds": spent,
        "paper strength": strength(model, OBJECTIVE.saliency, theirs),
        "paper steps": took,
        "steps": steps if method == "upi-grad" else 1,
    }
