"""Where the time of a step goes, beside that of the smoothed pass: shares of operations, as a Markdown table.

python -m benchmarks.profile_step                       # networks of the zoo
UPI_DATA=... python -m benchmarks.profile_step NAME ... # networks of benchmarks/panel.py
"""

from __future__ import annotations

import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile

import upi
from benchmarks.common import BETA, Problem, images, network, problem
from benchmarks.panel import MEMBERS
from upi.attacks.support.gradients import gradients
from upi.attacks.support.objective import MapChange, explained_batch

GROUPS = {
    "convolutions": ("convolution", "conv"),
    "softplus and its derivatives": ("softplus", "sigmoid", "aten::mul", "addcmul"),
    "pooling": ("softmax", "aten::stack", "aten::cat", "pool"),
    "copies and memory": ("copy", "empty", "zero", "fill", "contiguous", "clone"),
}
REPEATS = 5


def group_of(operation: str) -> str:
    return next((g for g, words in GROUPS.items() if any(w in operation for w in words)), "everything else")


def shares(task: Problem, what: str, fast: bool) -> dict[str, float]:
    """Milliseconds per call by group of operations, by their own time."""

    def run() -> object:
        return task.smoothed() if what == "pass" else task.step(fast=fast)

    run()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(REPEATS):
            run()
    total: dict[str, float] = {}
    for event in found.key_averages():
        name = group_of(event.key)
        total[name] = total.get(name, 0.0) + event.self_cpu_time_total / 1000 / REPEATS
    return total


def panel(name: str) -> None:
    """One network of the panel, eight images: a plain map of its own, and the step in both ways."""
    member = MEMBERS[name]()
    x = member.fit.images[:8]
    objective = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2)
    with member.model.frozen():
        target = member.model.predict(x)
        start = time.perf_counter()
        upi.saliency.explain(objective.saliency, member.model, x, target)
        times = {"plain map of the network itself": time.perf_counter() - start}
        for title, fast in (("step", True), ("step by autograd", False)):
            surrogate = member.model.surrogate(BETA, fast=fast)
            batch = explained_batch(objective, surrogate, x, target)
            point = x + 0.005 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
            for _ in range(2):  # the first one warms up
                start = time.perf_counter()
                gradients(surrogate, objective, batch, point, where="profile")
            times[title] = time.perf_counter() - start
    print(f"{member.title}, 8 images, {torch.get_num_threads()} threads:")
    print(", ".join(f"{title} {seconds:.2f} s" for title, seconds in times.items()))


def main() -> None:
    for name in sys.argv[1:]:
        panel(name)
    if sys.argv[1:]:
        return
    for arch, width, batch in (("vgg16", 0.25, 64), ("resnet18", 1.0, 16)):
        net = network(arch, width, 32)
        columns = {
            "smoothed pass, folded": shares(problem(net, images(batch, 32), folded=True), "pass", False),
            "upi": shares(problem(net, images(batch, 32)), "step", True),
            "double backward": shares(problem(net, images(batch, 32)), "step", False),
        }
        print(f"\n{arch} x{width:g}, batch {batch}, {torch.get_num_threads()} threads (ms per call)\n")
        print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
        for name in [*GROUPS, "everything else"]:
            print(f"| {name} | " + " | ".join(f"{c.get(name, 0.0):.1f}" for c in columns.values()) + " |")
        print("| sum | " + " | ".join(f"{sum(c.values()):.1f}" for c in columns.values()) + " |")


if __name__ == "__main__":
    main()
