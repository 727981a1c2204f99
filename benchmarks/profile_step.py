"""Where the time of a step goes, beside the unit's: shares of operations, as a Markdown table.

python -m benchmarks.profile_step
"""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import Problem, images, network, problem

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
        return task.unit() if what == "unit" else task.step(fast=fast)

    run()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(REPEATS):
            run()
    total: dict[str, float] = {}
    for event in found.key_averages():
        name = group_of(event.key)
        total[name] = total.get(name, 0.0) + event.self_cpu_time_total / 1000 / REPEATS
    return total


def main() -> None:
    for arch, width, batch in (("vgg16", 0.25, 64), ("resnet18", 1.0, 16)):
        net = network(arch, width, 32)
        columns = {
            "unit, folded": shares(problem(net, images(batch, 32), folded=True), "unit", False),
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
