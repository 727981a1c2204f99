"""Evaluation and the per-image control, in own passes per image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import upi
from benchmarks.common import Scale, images, network, problem, timed

STEPS = upi.PerImageAttack.steps


def _rows(model: upi.Classifier, loader: list[torch.Tensor], steps: int) -> dict[str, Callable[[], object]]:
    shape = tuple(loader[0].shape[1:])
    noise = upi.RandomPerturbation(model, eps=1.0).pattern(shape)
    per_image = upi.PerImageAttack(model, eps=1.0, steps=steps, prediction_price=0.5)
    ball: dict[str, Any] = {"norm": "l2", "eps": 1.0}
    return {
        "one universal row": lambda: upi.evaluate(model, {"x": noise}, loader, controls=False),
        "all controls but the per-image attack": lambda: upi.evaluate(
            model, {}, loader, controls=("random", "tiny-noise", "other-image"), **ball
        ),
        f"per-image attack, {STEPS} steps": lambda: [per_image(x, model.predict(x)) for x in loader],
    }


ROWS = ("one universal row", "all controls but the per-image attack", f"per-image attack, {STEPS} steps")


@pytest.mark.parametrize(("arch", "width"), [("vgg16", 0.25), ("resnet18", 0.25)])
@pytest.mark.parametrize("row", ROWS)
def test_evaluation(benchmark: BenchmarkFixture, row: str, arch: str, width: float, scale: Scale) -> None:
    net = network(arch, 0.125 if scale.smoke else width, 32)
    count = scale(100, 4)
    x = images(count, 32)
    run = _rows(upi.Classifier(net), [x], scale(STEPS, 2))[row]
    facts: dict[str, Any] = {"table": "evaluation", "arch": arch, "width": width, "row": row, "images": count}
    timed(benchmark, run, rounds=scale.rounds(3), beside=problem(net, x).own, **facts)
