"""Integrated gradients: memory and time of a fitting step and of a map against the number of steps."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.common import Scale, images, network, peak, problem, timed
from upi.core.types import SaliencyMap
from upi.saliency import Gradient, IntegratedGradients, SmoothGrad

STEPS = (1, 5, 10, 20, 50, 100)


@pytest.mark.parametrize("what", ["step", "map"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad"])
def test_maps(benchmark: BenchmarkFixture, method: str, steps: int, what: str, scale: Scale) -> None:
    """``steps`` = 1 is the simple gradient, which the others are counted in."""
    if method == "smoothgrad" and steps not in (10, 100):
        pytest.skip("two lengths say enough")
    saliency: SaliencyMap = Gradient()
    if steps > 1:
        many = scale(steps, 3)
        saliency = (
            IntegratedGradients(steps=many) if method == "integrated_gradients" else SmoothGrad(samples=many)
        )
    net = network("vgg16", 0.125 if scale.smoke else 0.25, 32).to(scale.device)
    task = problem(net, images(scale(64, 2), 32).to(scale.device), saliency=saliency)
    run = task.unit if what == "map" else task.step
    facts: dict[str, Any] = {"table": "maps", "method": method, "steps": steps, "what": what}
    few = steps > 10
    timed(benchmark, run, rounds=scale.rounds(1 if few else 5), warm=not few, device=scale.device, **facts)
    benchmark.extra_info["peak"] = peak(run, scale.device)
