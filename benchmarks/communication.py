"""What several workers of one job spend on talking: torchrun --nproc-per-node N -m benchmarks.communication.

Milliseconds of one exact sum of d numbers over all workers, as a step of UPI-Grad needs it, for the sizes of
MNIST, CIFAR-10 and ImageNet; and of a pass of a small network over 64 images shared by the workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import upi
from benchmarks.common import images, network
from upi.core.distributed import leads, sharding, team
from upi.core.exact import exact_sum
from upi.core.launch import workers

SIZES = (784, 3072, 150_528)
ROUNDS = 30


def median(run: Callable[[], object], rounds: int) -> float:
    """Seconds of a call, after two that warm up."""
    spent = []
    for number in range(rounds + 2):
        begin = time.perf_counter()
        run()
        if number >= 2:
            spent.append(time.perf_counter() - begin)
    return sorted(spent)[len(spent) // 2]


def main() -> None:
    """Print a line from the leading worker."""
    with workers():
        me, lines = team(), []
        for size in SIZES:
            own = {me.rank: [torch.randn(size)]}
            like = [torch.zeros(size)]
            spent = median(lambda own=own, like=like: exact_sum(own, me.size, like), ROUNDS)  # type: ignore[misc]
            lines.append(f"d = {size}: {1e3 * spent:.2f} ms")
        net, batches = network("resnet18", 0.25, 32), [images(64, 32)]
        with sharding(8):
            fit = upi.UPIGrad(net, eps=1.0, steps=10)
            begin = time.perf_counter()
            fit.fit(batches)
            lines.append(f"10 steps of 64 images, ResNet-18 ×0.25: {time.perf_counter() - begin:.2f} s")
        if leads():
            print(f"{me.size} workers, {torch.get_num_threads()} threads each; " + "; ".join(lines))


if __name__ == "__main__":
    main()
