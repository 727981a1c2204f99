"""Maps of many passes: memory and time of a fitting step and of a map by number of steps, beside captum's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from captum.attr import IntegratedGradients as CaptumIntegratedGradients, Saliency as CaptumSaliency
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.common import Problem, Scale, images, network, peak, problem, timed
from upi.core.types import SaliencyMap
from upi.saliency import Gradient, IntegratedGradients, SmoothGrad, explain

STEPS = (1, 5, 10, 20, 50, 100)
#: Steps that are measured of each map; 1 stands for the simple gradient.
MEASURED = {"integrated gradients": STEPS, "smoothgrad": (10, 100), "captum": (1, 10, 100)}
CASES = [
    (method, steps, what)
    for method, some in MEASURED.items()
    for steps in some
    for what in (("map",) if method == "captum" else ("step", "map"))
]


def _map_of(method: str, steps: int) -> SaliencyMap:
    if steps == 1 or method == "captum":
        return Gradient()
    return SmoothGrad(samples=steps) if method == "smoothgrad" else IntegratedGradients(steps=steps)


def _run(task: Problem, method: str, steps: int, what: str) -> Callable[[], object]:
    """Maps of the network as given, as an evaluation takes them; steps through its smoothed form."""
    net, point, target = task.model.net, task.point, task.batch.target
    if what == "step":
        return task.step
    if method == "captum" and steps == 1:
        return lambda: CaptumSaliency(net).attribute(point, target)
    if method == "captum":
        whole = CaptumIntegratedGradients(net)
        return lambda: whole.attribute(point, target=target, n_steps=steps)
    return lambda: explain(task.objective.saliency, task.model, point, target)


@pytest.mark.parametrize(("method", "steps", "what"), CASES)
def test_maps(benchmark: BenchmarkFixture, method: str, steps: int, what: str, scale: Scale) -> None:
    many = steps if steps == 1 else scale(steps, 3)
    net = network("vgg16", 0.125 if scale.smoke else 0.25, 32).to(scale.device)
    x = images(scale(64, 2), 32).to(scale.device)
    task = problem(net, x, saliency=_map_of(method, many))
    run = _run(task, method, many, what)
    facts: dict[str, Any] = {"table": "maps", "method": method, "steps": steps, "what": what}
    few = steps > 10
    rounds = scale.rounds(2 if few else 5)
    timed(benchmark, run, rounds=rounds, warm=not few, device=scale.device, beside=task.own, **facts)
    benchmark.extra_info["peak"] = peak(run, scale.device)
