"""What became slower: python -m benchmarks.check [--keep]; ``make bench-check``.

Every line is a ratio of two times taken in turns on this machine: a piece of work, over the plain saliency
pass of the network as given. Seconds are of one machine and one hour, ratios last; they are compared with
the kept ones (``benchmarks/results/guard.json``), and what is more than 10 % above is named. Exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import upi
from benchmarks.common import Problem, images, lively, network, own_pass, problem
from upi.attacks.support.gradients import gradients
from upi.attacks.support.rows import ExplainedImages, RowPlan, margin_rows
from upi.core.allocation import keep_freed_memory
from upi.saliency import explain

KEPT = Path(__file__).parent / "results" / "guard.json"
#: Networks for images of 32 pixels: name and width.
NETWORKS = (("vgg16", 0.25), ("resnet18", 0.25), ("mobilenet_v2", 0.25), ("vit", 0.34))
BATCH, ROUNDS, ALLOWED = 16, 9, 1.1

Work = Callable[[], object]


def works(task: Problem, net: torch.nn.Module) -> Iterator[tuple[str, Work]]:
    """The plain pass first, then what is compared with it."""
    model, target = task.model, task.batch.target
    yield "own pass", lambda: own_pass(net, task.point, target)
    quick, plain = model.surrogate(20.0), model.surrogate(20.0, fast=False)

    def step() -> object:
        return gradients(quick, task.objective, task.batch, task.point, where="").gradient

    yield "step of UPI-Grad", step
    yield "softplus pass", lambda: explain(task.objective.saliency, plain, task.point, target)
    yield "simple gradient", lambda: explain(upi.saliency.Gradient(), model, task.point, target)
    yield (
        "integrated gradients, 8 steps",
        lambda: explain(upi.saliency.IntegratedGradients(steps=8), model, task.point, target),
    )
    drawn = ExplainedImages(plain, task.objective, [task.batch.x])
    yield "margin rows", lambda: margin_rows(drawn, task.batch, RowPlan(0.02, 1, 0))


def ratios(arch: str, width: float, rounds: int = ROUNDS, batch: int = BATCH) -> dict[str, float]:
    """The least time of each piece of work in ``rounds`` turns, over that of the plain pass."""
    net = network(arch, width, 32)
    task = problem(lively(net), images(batch, 32))
    spent: dict[str, list[float]] = {}
    with task.model.frozen():
        for _ in range(rounds + 1):
            for name, work in works(task, net):
                begin = time.perf_counter()
                work()
                spent.setdefault(name, []).append(time.perf_counter() - begin)
    least = {name: min(each[1:]) for name, each in spent.items()}
    unit = least.pop("own pass")
    return {f"{arch} ×{width:g}: {name}": each / unit for name, each in least.items()}


def slower(found: dict[str, float], kept: dict[str, float], allowed: float = ALLOWED) -> list[str]:
    """What is above its kept ratio by more than is allowed, in words; what is new says nothing."""
    return [
        f"{name}: {found[name]:.2f} passes, kept {kept[name]:.2f} ({found[name] / kept[name] - 1:+.0%})"
        for name in found
        if name in kept and found[name] > allowed * kept[name]
    ]


def main() -> None:
    """Measure, compare, and keep where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="Keep what is measured.")
    chosen = parser.parse_args()
    keep_freed_memory()  # as the command line
    found = {name: ratio for arch, width in NETWORKS for name, ratio in ratios(arch, width).items()}
    kept: dict[str, float] = json.loads(KEPT.read_text())["ratios"] if KEPT.exists() else {}
    for name, ratio in found.items():
        print(f"{name}: {ratio:.2f} passes" + (f" (kept {kept[name]:.2f})" if name in kept else ""))
    if chosen.keep:
        rounded = {name: round(ratio, 3) for name, ratio in found.items()}
        record = {"torch": torch.__version__, "threads": torch.get_num_threads(), "ratios": rounded}
        KEPT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        return
    again = [name for name in found if slower({name: found[name]}, kept)]
    if again:  # once more, so that an unlucky minute accuses nobody
        for arch, width in NETWORKS:
            if any(name.startswith(f"{arch} ×{width:g}:") for name in again):
                second = ratios(arch, width)
                found |= {name: min(found[name], second[name]) for name in second}
    worse = slower(found, kept)
    for line in worse:
        print(f"slower: {line}")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
