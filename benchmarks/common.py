"""Problems, timing and memory that the benchmarks have in common.

Everything is counted in *passes* of the network as a user has it: forward, and gradient of a logit with
respect to the input, by autograd. Beside it stand the same pass through its softplus form (with its own
max-pooling) and through the smoothed form that attacks look through (max-pooling smoothed too).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

import upi
from upi.attacks.support.gradients import Gradients, gradients
from upi.attacks.support.objective import MapChange, explained_batch
from upi.data.batches import Batch
from upi.data.shape import Shape
from upi.models.nets import NETS
from upi.network import activations, smooth
from upi.network.surrogate import Surrogate

BETA = 20.0


@dataclass(frozen=True)
class Scale:
    """Where the work runs and how much of it is done."""

    device: str = "cpu"
    smoke: bool = False

    def rounds(self, count: int) -> int:
        return 1 if self.smoke else count

    def __call__(self, full: int, smoke: int) -> int:
        return smoke if self.smoke else full


def lively(net: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, and no layer of zeros, as after training."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Linear) and not bool(module.weight.any()):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def network(arch: str, width: float, size: int, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return lively(NETS[arch](Shape(channels, size, 10), width))


def own_pass(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """A saliency map as a user makes it: forward, and the gradient of the logit with respect to the input."""
    point = x.detach().requires_grad_()
    found: Tensor = torch.autograd.grad(net(point).gather(1, target[:, None]).sum(), point)[0]
    return found.abs().sum(1)


class OwnPooling(activations.Smooth):
    """Softplus for activations; max-pooling stays as it is."""

    def max_pool2d(self, *args: Any, **named: Any) -> Any:
        return F.max_pool2d(*args, **named)

    def adaptive_max_pool2d(self, *args: Any, **named: Any) -> Any:
        return F.adaptive_max_pool2d(*args, **named)


@dataclass(frozen=True)
class Problem:
    """One step of UPI-Grad: images, their clean maps, and where they are moved to."""

    model: upi.Classifier
    objective: MapChange
    batch: Batch
    point: Tensor

    @contextmanager
    def surrogate(self, *, fast: bool = True) -> Iterator[Surrogate]:
        """The softplus network, frozen meanwhile, so that what can be folded is found once."""
        with self.model.frozen():
            yield self.model.surrogate(BETA, fast=fast)

    def own(self) -> Tensor:
        """The user's own pass; maps (N, H, W)."""
        return own_pass(self.model.net, self.point, self.batch.target)

    def softplus(self) -> Tensor:
        """A pass through the softplus form, with its own max-pooling; maps (N, H, W)."""
        with patch.object(smooth, "Smooth", OwnPooling):
            return self.smoothed()

    def smoothed(self) -> Tensor:
        """A pass through the smoothed form; maps (N, H, W)."""
        with self.surrogate(fast=False) as surrogate:
            return upi.saliency.explain(self.objective.saliency, surrogate, self.point, self.batch.target)

    def step(self, *, fast: bool = True) -> Gradients:
        """The attack gradient with the clean maps known."""
        with self.surrogate(fast=fast) as surrogate:
            return gradients(surrogate, self.objective, self.batch, self.point, where="benchmark")


def problem(
    net: nn.Module,
    x: Tensor,
    *,
    saliency: upi.core.types.SaliencyMap | None = None,
    price: float = 0.0,
    folded: bool = False,
    tf32: bool = False,
) -> Problem:
    """The step on images ``x``; with ``folded`` the network's batch norms are folded beforehand."""
    model = upi.Classifier(fuse(net) if folded else net, tf32=tf32)
    objective = MapChange(saliency or upi.saliency.Gradient(), upi.dissimilarity.relative_l2, price)
    with model.frozen():
        batch = explained_batch(objective, model.surrogate(BETA, fast=False), x, model.predict(x))
    noise = 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return Problem(model, objective, batch, x + noise.to(x))


def images(count: int, size: int, *, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def timed(
    benchmark: BenchmarkFixture,
    run: Callable[[], Any],
    *,
    rounds: int,
    device: str = "cpu",
    warm: bool = True,
    beside: Callable[[], Any] | None = None,
    **facts: Any,
) -> Any:
    """Time ``run`` after one call that warms up; ``facts`` go into the record.

    ``beside`` is run and timed before each round, so that a machine whose speed drifts does not
    decide about ratios; the least of its times is recorded under its name.
    """

    def synchronised() -> Any:
        found = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return found

    spent: list[float] = []

    def other() -> None:
        if beside is not None:
            start = time.perf_counter()
            beside()
            if device == "cuda":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - start)

    benchmark.extra_info.update(facts)
    found = benchmark.pedantic(synchronised, setup=other, rounds=rounds, warmup_rounds=int(warm))
    if spent:
        benchmark.extra_info["beside"] = min(spent)
    return found


def peak(run: Callable[[], Any], device: str = "cpu") -> int:
    """Bytes that one call of ``run`` needs at the most beyond what is there already."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    import memray

    run()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.bin"
        with memray.Tracker(file, trace_python_allocators=False):
            run()
        return int(memray.FileReader(file).metadata.peak_memory)
