"""Gradient passes to 95 % of the strength that a ten times longer run reaches.

A pass is one image in one step. Ours is the default rule at several lengths; the other is plain
projected ascent as papers write it: a constant step along the gradient, no momentum, the map of the
softmax output on the network itself. Its step size is the best of several. The same plain ascent is
also given our objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import upi
from benchmarks.common import Scale, timed
from benchmarks.digits import EPS, NETWORKS, classifier, parts, strength
from upi.attacks.base import default_sigma
from upi.attacks.support.ascent import Ascent, Rule, ascend
from upi.attacks.support.objective import MapChange
from upi.attacks.support.universal import MinibatchObjective
from upi.core.seeding import generator
from upi.data.batches import EndlessBatches

BATCH = 32
LENGTHS = (5, 10, 15, 20, 30, 40, 60, 80, 120, 200)
LONG = 2000
SIZES = (0.1, 0.5)


@dataclass(frozen=True)
class Constant(Rule):
    """The same step size throughout."""

    def size(self, step: int) -> float:
        return self.step_size


def plain_ascent(attack: upi.UPIGrad, size: float, marks: Sequence[int]) -> dict[int, Tensor]:
    """Iterates (C, H, W) of projected ascent with a constant step after so many updates."""
    objective = MapChange(attack.map, attack.change)
    loader = parts()["fit"].batches(BATCH)
    found: dict[int, Tensor] = {}
    with attack.fitting(loader, attack.beta("auto"), objective) as (surrogate, first):
        explain = partial(objective.clean, surrogate)
        stream = EndlessBatches(attack.classifier, explain, loader, correct_only=attack.protocol.correct_only)
        sigma = default_sigma(attack.ball, first[0].numel(), 0.1)
        mean = MinibatchObjective(surrogate, objective, stream, sigma, attack.seed)

        def watched(delta: Tensor, step: int) -> Ascent:
            if step in marks:
                found[step] = delta[0].clone()
            return mean(delta, step)

        start = attack.ball.sample((1, *first.shape[1:]), generator(attack.seed, "start"))
        last = ascend(watched, start, attack.ball, Constant(max(marks), size, 0.0))
        found[max(marks)] = last.delta[0]
    return found


def passes_to(share: float, curve: dict[int, float], reference: float) -> float | None:
    """Passes at which the curve first reaches a share of the reference, between points linearly."""
    before: tuple[int, float] | None = None
    for passes, value in sorted(curve.items()):
        if value >= share * reference:
            if before is None:
                return float(passes)
            part = (share * reference - before[1]) / (value - before[1])
            return before[0] + part * (passes - before[0])
        before = passes, value
    return None


def _ours(arch: str, seed: int, lengths: Sequence[int], epochs: int, preset: str) -> dict[int, float]:
    model, curve = classifier(arch, epochs=epochs), {}
    for steps in lengths:
        attack = upi.UPIGrad(model, eps=EPS, steps=steps, seed=seed, preset=preset)
        found = attack.fit(parts()["fit"].batches(BATCH))
        curve[steps * BATCH] = strength(model, attack.map, found.delta)
    return curve


def _plain(arch: str, seed: int, marks: Sequence[int], epochs: int, preset: str) -> dict[int, float]:
    """The step size that is best at the end, as a user who tries several would find."""
    model, curves = classifier(arch, epochs=epochs), []
    attack = upi.UPIGrad(model, eps=EPS, seed=seed, preset=preset)
    for size in SIZES:
        found = plain_ascent(attack, size, marks)
        curves.append({s * BATCH: strength(model, attack.map, delta) for s, delta in found.items()})
    return max(curves, key=lambda curve: passes_value(curve))


def passes_value(curve: dict[int, float]) -> float:
    return curve[max(curve)]


METHODS: dict[str, tuple[Any, str]] = {
    "upi": (_ours, "protocol"),
    "plain ascent": (_plain, "protocol"),
    "upi, paper preset": (_ours, "paper"),
    "plain ascent, paper preset": (_plain, "paper"),
}


@pytest.mark.parametrize("arch", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_strength(benchmark: BenchmarkFixture, method: str, arch: str, scale: Scale) -> None:
    run, preset = METHODS[method]
    epochs = scale(4, 1)
    lengths = (1, 2) if scale.smoke else LENGTHS
    longest = scale(LONG, 3)
    torch.manual_seed(0)

    def curves() -> list[dict[int, float]]:
        """The first reaches the length that everything is measured by."""
        several = arch == "small-cnn" and method.startswith("upi") and not scale.smoke
        seeds = (0, 1, 2) if several else (0,)
        return [run(arch, seed, (*lengths, longest), epochs, preset) for seed in seeds]

    found = timed(benchmark, curves, rounds=1, warm=False, table="strength", method=method, arch=arch)
    mean = {passes: sum(c[passes] for c in found) / len(found) for passes in found[0]}
    reference = mean[longest * BATCH]
    benchmark.extra_info["curve"] = mean
    benchmark.extra_info["reference"] = reference
    benchmark.extra_info["passes to 95 %"] = passes_to(0.95, mean, reference)
    benchmark.extra_info["seeds"] = len(found)
