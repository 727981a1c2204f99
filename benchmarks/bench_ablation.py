"""What each part of the fast path is worth: the step with one more of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.common import Problem, Scale, images, network, problem, timed
from upi.attacks.support.gradients import gradients
from upi.attacks.support.objective import explained_batch
from upi.network import activations, smooth
from upi.network.classifier import Classifier
from upi.network.kernels import Folding

CASES = [("vgg16", 0.25, 64), ("resnet18", 1.0, 16)]
LADDER = (
    "autograd, clean maps each time",
    "clean maps once",
    "convolutions",
    "softplus",
    "pooling",
    "batch norm folded",
)


class _OnlySoftplus(activations.Fast):
    pool = activations.Smooth.pool


@contextmanager
def _parts(count: int) -> Iterator[None]:
    """The fast path with the first ``count`` of convolutions, softplus, pooling, folding."""
    real = smooth._frozen_forms

    def forms(folding: Folding) -> smooth.Table:
        found = real(folding)
        return found if count > 3 else {torch.conv2d: found[torch.conv2d]}

    forms_of = (activations.Smooth, _OnlySoftplus, activations.Fast, activations.Fast)[count - 1]
    with patch.object(smooth, "Fast", forms_of), patch.object(smooth, "_frozen_forms", forms):
        if count > 3:
            yield
        else:
            with patch.object(Classifier, "foldable", lambda self, x: Folding()):
                yield


@pytest.mark.parametrize(("arch", "width", "batch"), CASES)
@pytest.mark.parametrize("part", LADDER)
def test_ladder(
    benchmark: BenchmarkFixture, part: str, arch: str, width: float, batch: int, scale: Scale
) -> None:
    net = network(arch, 0.125 if scale.smoke else width, 32)
    x = images(scale(batch, 2), 32)
    task = problem(net, x)
    facts: dict[str, Any] = {"table": "ablation", "arch": arch, "width": width, "batch": batch, "part": part}
    rounds = scale.rounds(7)
    place = LADDER.index(part)
    if place < 2:
        timed(benchmark, _plain(task, again=place == 0), rounds=rounds, beside=task.own, **facts)
        return
    with _parts(place - 1):
        found = timed(benchmark, lambda: task.step().gradient, rounds=rounds, beside=task.own, **facts)
    reference = task.step(fast=False).gradient
    benchmark.extra_info["error"] = float((found - reference).norm() / reference.norm())


def _plain(task: Problem, *, again: bool) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        with task.surrogate(fast=False) as surrogate:
            batch = task.batch
            if again:
                batch = explained_batch(task.objective, surrogate, batch.x, batch.target)
            return gradients(surrogate, task.objective, batch, task.point, where="").gradient

    return run
