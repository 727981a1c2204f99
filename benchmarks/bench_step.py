"""One step of UPI-Grad beside what users would otherwise do, in passes of the network as given."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.common import Problem, Scale, images, network, peak, problem, timed
from upi.attacks.support.compiled import CompiledGradient
from upi.attacks.support.gradients import gradients
from upi.attacks.support.objective import explained_batch
from upi.network.surrogate import Surrogate
from upi.saliency.reduce import normalise_maps, reduce_channels

NETWORKS = (("vgg16", 0.25), ("vgg16", 1.0), ("resnet18", 0.25), ("resnet18", 1.0), ("vit", 1.0))
BATCHES = (64, 16)
#: What a pass is: of the network as given, its softplus form, the smoothed one, that with batch norms folded.
PASSES = ("own pass", "softplus pass", "smoothed pass", "smoothed pass, folded")
#: Rounds: the quick ones often, the slow ones so that a table takes minutes.
ROUNDS = {"one image at a time": 2} | dict.fromkeys((*PASSES, "upi", "upi, priced"), 9)


def _uncached(task: Problem) -> Tensor:
    with task.surrogate(fast=False) as surrogate:
        batch = explained_batch(task.objective, surrogate, task.batch.x, task.batch.target)
        return gradients(surrogate, task.objective, batch, task.point, where="").gradient


def _one_at_a_time(task: Problem) -> Tensor:
    """As the paper's own scripts work: each image alone, its clean map computed when it is needed."""
    found = []
    with task.surrogate(fast=False) as surrogate:
        for i in range(len(task.batch)):
            x, target = task.batch.x[i : i + 1], task.batch.target[i : i + 1]
            batch = explained_batch(task.objective, surrogate, x, target)
            found.append(
                gradients(surrogate, task.objective, batch, task.point[i : i + 1], where="").gradient
            )
    return torch.cat(found)


def _micro_batches(task: Problem, size: int = 16) -> Tensor:
    """The fast step on parts small enough for the processor's cache."""
    found = []
    with task.surrogate() as surrogate:
        for first in range(0, len(task.batch), size):
            some = torch.zeros(len(task.batch), dtype=torch.bool, device=task.point.device)
            some[first : first + size] = True
            part = task.batch.take(some)
            found.append(gradients(surrogate, task.objective, part, task.point[some], where="").gradient)
    return torch.cat(found)


def _logits(surrogate: Surrogate, task: Problem, point: Tensor) -> Tensor:
    return surrogate(point).gather(1, task.batch.target[:, None]).sum()


def _slope_of_maps(surrogate: Surrogate, task: Problem) -> tuple[Tensor, Tensor]:
    """The input gradient g, and v = dD/dg: the attack gradient is the Hessian's product with v."""
    point = task.point.detach().requires_grad_()
    (g,) = torch.autograd.grad(_logits(surrogate, task, point), point)
    g.requires_grad_()
    maps = normalise_maps(reduce_channels(g, "abs_sum"), "l1")
    (v,) = torch.autograd.grad(task.objective.dissimilarity(task.batch.clean, maps).sum(), g)
    return g.detach(), v


def _forward_over_reverse(task: Problem) -> Tensor:
    with task.surrogate(fast=False) as surrogate:
        _, v = _slope_of_maps(surrogate, task)
        slope = torch.func.grad(lambda point: _logits(surrogate, task, point))
        _, product = torch.func.jvp(slope, (task.point,), (v,))
        return product.detach()


def _differences(task: Problem) -> Tensor:
    """Central difference of the gradient along v, image by image of unit length."""
    with task.surrogate(fast=False) as surrogate:
        _, v = _slope_of_maps(surrogate, task)
        length = v.flatten(1).norm(dim=1)[:, None, None, None]
        step = 1e-2 * v / length
        ends = []
        for sign in (1, -1):
            point = (task.point + sign * step).detach().requires_grad_()
            ends.append(torch.autograd.grad(_logits(surrogate, task, point), point)[0])
        return (ends[0] - ends[1]) / 2e-2 * length


METHODS: dict[str, Callable[[Problem], Tensor]] = {
    "own pass": lambda task: task.own(),
    "softplus pass": lambda task: task.softplus(),
    "smoothed pass": lambda task: task.smoothed(),
    "smoothed pass, folded": lambda task: task.smoothed(),
    "upi": lambda task: task.step().gradient,
    "upi, priced": lambda task: task.step().gradient,
    "upi, channels last": lambda task: task.step().gradient,
    "upi, micro-batches of 16": _micro_batches,
    "double backward": lambda task: task.step(fast=False).gradient,
    "double backward, clean maps each time": _uncached,
    "forward over reverse": _forward_over_reverse,
    "differences of the gradient": _differences,
    "one image at a time": _one_at_a_time,
}


def _task(method: str, arch: str, width: float, batch: int, scale: Scale) -> Problem:
    width, batch = (0.125, 2) if scale.smoke else (width, batch)
    net = network(arch, width, 32).to(scale.device)
    x = images(batch, 32).to(scale.device)
    if method == "upi, channels last":
        net = deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.contiguous(memory_format=torch.channels_last)
    price = 0.5 if method == "upi, priced" else 0.0
    return problem(net, x, folded="folded" in method, price=price)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("arch", "width"), NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_step(
    benchmark: BenchmarkFixture, method: str, arch: str, width: float, batch: int, scale: Scale
) -> None:
    if batch == BATCHES[-1] and "micro" in method:
        pytest.skip("the batch is one already")
    task = _task(method, arch, width, batch, scale)

    def run() -> Tensor:
        return METHODS[method](task)

    facts: dict[str, Any] = {"table": "step", "arch": arch, "width": width, "batch": batch, "method": method}
    beside = _task("own pass", arch, width, batch, scale).own  # as given, whatever the method's layout is
    rounds = scale.rounds(ROUNDS.get(method, 4))
    found = timed(benchmark, run, rounds=rounds, device=scale.device, beside=beside, **facts)
    if method not in PASSES and "priced" not in method:
        reference = task.step(fast=False).gradient
        benchmark.extra_info["error"] = float((found - reference).norm() / reference.norm())
    if method != "one image at a time":
        benchmark.extra_info["peak"] = peak(run, scale.device)


@pytest.mark.parametrize(("arch", "width"), [("vgg16", 0.25), ("resnet18", 0.25)])
def test_compiled_step(benchmark: BenchmarkFixture, arch: str, width: float, scale: Scale) -> None:
    task = _task("upi", arch, width, 64, scale)
    function = CompiledGradient(backend="eager" if scale.smoke else "inductor")

    def run() -> Tensor:
        with task.surrogate() as surrogate:
            found = gradients(surrogate, task.objective, task.batch, task.point, where="", function=function)
            return found.gradient

    run()
    assert function.graph is not None
    facts: dict[str, Any] = {
        "table": "step",
        "arch": arch,
        "width": width,
        "batch": 64,
        "method": "upi, compiled",
    }
    found = timed(benchmark, run, rounds=scale.rounds(9), device=scale.device, beside=task.own, **facts)
    reference = task.step(fast=False).gradient
    benchmark.extra_info["error"] = float((found - reference).norm() / reference.norm())
    benchmark.extra_info["peak"] = peak(run, scale.device)
