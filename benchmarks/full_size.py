"""Full-size networks at 224 px, on a GPU or here: python -m benchmarks.full_size --out FILE [--device cuda].

In units of the plain saliency pass that a user knows (forward and input gradient of the network as given):
the softplus pass, a step of UPI-Grad in every mode, double backward, the published procedure. Steps are
timed inside a fit, whose surrogate is open. Random weights and images, whose values do not change the
cost; lines are kept as they come, so that a run that is cut short has whole ones. Needs torch and
torchvision alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import upi
from benchmarks.common import Problem, images, lively, own_pass, peak, problem
from upi.attacks.support.compiled import CAPTURED, CompiledGradient
from upi.attacks.support.gradients import GradientFunction, attack_gradient, gradients
from upi.attacks.support.objective import explained_batch
from upi.attacks.support.rows import ExplainedImages, RowPlan, margin_rows
from upi.core.allocation import keep_freed_memory
from upi.network.surrogate import Surrogate
from upi.saliency import explain

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    name: getattr(torchvision.models, name)
    for name in ("resnet50", "vit_b_16", "vgg16", "mobilenet_v2", "efficientnet_b0", "resnet18")
}
BATCH = 32


def published(task: Problem, images_: int) -> Tensor:
    """As the paper's scripts work: each image alone, softplus by autograd, its clean map computed anew."""
    found = []
    with task.surrogate(fast=False) as surrogate:
        for i in range(images_):
            x, target = task.batch.x[i : i + 1], task.batch.target[i : i + 1]
            batch = explained_batch(task.objective, surrogate, x, target)
            found.append(
                gradients(surrogate, task.objective, batch, task.point[i : i + 1], where="").gradient
            )
    return torch.cat(found)


class Table:
    """Lines of the table, written as they come."""

    def __init__(self, path: Path, device: str, deadline: float) -> None:
        self.path, self.device, self.deadline = path, device, deadline
        name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        self.record: dict[str, Any] = {"device": name, "torch": torch.__version__, "lines": []}

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], Any], rounds: int) -> float:
        """The median of ``rounds`` calls after two that warm up."""
        spent = []
        for number in range(rounds + 2):
            self.synchronise()
            begin = time.perf_counter()
            run()
            self.synchronise()
            if number >= 2:
                spent.append(time.perf_counter() - begin)
        return sorted(spent)[len(spent) // 2]

    def add(self, run: Callable[[], Any], *, rounds: int = 7, per: int = BATCH, **facts: Any) -> None:
        """Time ``run``, which handles ``per`` images."""
        if self.late:
            return
        line = dict(facts)
        try:
            line["ms_per_image"] = 1e3 * self.seconds(run, rounds) / per
            if self.device == "cuda":
                line["peak_mb"] = peak(run, self.device) / 2**20
        except (RuntimeError, upi.core.errors.UPIError) as error:
            line["error"] = f"{type(error).__name__}: {str(error)[:200]}"
        self.record["lines"].append(line)
        self.path.write_text(json.dumps(self.record, indent=1) + "\n")
        print(line, flush=True)


def lines(table: Table, arch: str, size: int, batch: int, *, tf32: bool, last: bool, compiled: bool) -> None:
    """Every line of one network in one precision and layout."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    form = torch.channels_last if last else torch.contiguous_format
    torch.manual_seed(0)
    net = lively(NETWORKS[arch]()).to(table.device, memory_format=form)  # type: ignore[call-overload]
    x = images(batch, size).to(table.device, memory_format=form)
    task = problem(net, x, tf32=tf32)
    target = task.batch.target
    shared = {"arch": arch, "tf32": tf32, "channels_last": last, "batch": batch, "size": size}

    def add(way: str, run: Callable[[], Any], rounds: int = 7, per: int = batch) -> None:
        table.add(run, rounds=rounds, per=per, way=way, **shared)

    add("own network", lambda: own_pass(net, task.point, task.batch.target))
    if compiled:
        for mode in ("default", "reduce-overhead"):
            with task.surrogate() as surrogate:
                add(f"upi, compiled ({mode})", _step(task, surrogate, _function(mode, table.device)))
        return
    with task.surrogate(fast=False) as surrogate:
        add("softplus pass", lambda: explain(task.objective.saliency, surrogate, task.point, target))
        add("double backward", _step(task, surrogate), rounds=5)
    with task.surrogate() as surrogate:
        add("upi", _step(task, surrogate))
    if table.device == "cuda":
        with task.surrogate() as surrogate:
            add("upi, CUDA graph", _step(task, surrogate, CompiledGradient(CAPTURED)))
    if not tf32 and not last:
        _maps(add, task)
        few = min(8, batch)
        add("published, one image at a time", lambda: published(task, few), rounds=1, per=few)
        found, exact = task.step().gradient, task.step(fast=False).gradient
        table.record["lines"][-1]["error_of_upi"] = float((found - exact).norm() / exact.norm())


def _maps(add: Callable[..., None], task: Problem) -> None:
    """Maps, rows and an evaluation row, beside captum where it is installed."""
    point, target, steps = task.point, task.batch.target, 8
    integrated = upi.saliency.IntegratedGradients(steps=steps)
    add("simple gradient", lambda: explain(upi.saliency.Gradient(), task.model, point, target))
    add("integrated gradients", lambda: explain(integrated, task.model, point, target), rounds=3)
    try:
        from captum.attr import IntegratedGradients, Saliency
    except ImportError:
        print("captum is not installed: its maps are left out", flush=True)
    else:
        whole, net = IntegratedGradients(task.model.net), task.model.net
        add("captum, Saliency", lambda: Saliency(net).attribute(point, target))
        add(
            "captum, IntegratedGradients",
            lambda: whole.attribute(point, target=target, n_steps=steps),
            rounds=3,
        )
    with task.surrogate() as surrogate:
        drawn = ExplainedImages(surrogate, task.objective, [task.batch.x])
        add("margin rows", lambda: margin_rows(drawn, task.batch, RowPlan(0.02, 1, 0)), rounds=3)
    noise = upi.RandomPerturbation(task.model, eps=1.0)
    rows = {f"row {draw}": replace(noise, draw=draw).pattern(tuple(point.shape[1:])) for draw in range(5)}
    loader = [task.batch.x]
    for count, words in ((1, "evaluation of one row"), (5, "evaluation of five rows")):
        some = dict([*rows.items()][:count])
        add(words, partial(upi.evaluate, task.model, some, loader, controls=False), rounds=3)


def _function(mode: str, device: str) -> GradientFunction:
    return CompiledGradient(mode) if device == "cuda" else CompiledGradient(backend="eager")


def _step(
    task: Problem, surrogate: Surrogate, function: GradientFunction = attack_gradient
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        return gradients(
            surrogate, task.objective, task.batch, task.point, where="", function=function
        ).gradient

    return run


def plan() -> Iterator[tuple[str, bool, bool, bool]]:
    """Network, TF32, channels last, compiled: what matters most first."""
    for arch in NETWORKS:
        yield arch, False, False, False
    for arch in ("resnet50", "vit_b_16"):
        yield arch, True, False, False
        yield arch, True, True, False
    for arch in ("resnet50", "vit_b_16"):
        yield arch, False, False, True


def main() -> None:
    """Measure what there is time for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--arch", action="append", help="Only these networks, as they are.")
    parser.add_argument("--batch", type=int, default=BATCH)
    chosen = parser.parse_args()
    keep_freed_memory()  # as the command line
    table = Table(chosen.out, chosen.device, time.monotonic() + chosen.seconds)
    size, batch = (64, 2) if chosen.smoke else (224, chosen.batch)
    wanted = [(arch, False, False, False) for arch in chosen.arch or ()]
    for arch, tf32, last, compiled in wanted or plan():
        if chosen.smoke and arch in ("vit_b_16", "vgg16"):
            continue
        if not table.late:
            lines(table, arch, size, batch, tf32=tf32, last=last, compiled=compiled)


if __name__ == "__main__":
    main()
