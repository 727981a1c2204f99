"""Resident memory of fitting on maps of many passes: python -m benchmarks.maps_memory STEPS [SIZE [IMAGES]].

UPI-Grad takes two steps on integrated gradients of STEPS passes (1: the simple gradient) of IMAGES random
images of SIZE pixels, MobileNetV2 with random weights, one thread.
"""

from __future__ import annotations

import resource
import sys
import time

import torch

import upi
from benchmarks.common import images
from upi.core.allocation import keep_freed_memory
from upi.data.shape import Shape
from upi.models.architectures import build


def main(steps: int, size: int = 224, count: int = 20) -> None:
    """Print what was needed at the most, and the seconds of the whole fit."""
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    model = upi.Classifier(build("torchvision/mobilenet_v2", Shape(3, size, size, 1000)).eval())
    x = images(count, size)
    explained = upi.saliency.IntegratedGradients(steps=steps) if steps > 1 else "gradient"
    begin = time.perf_counter()
    upi.UPIGrad(model, eps=1.0, steps=2, saliency=explained).fit([(x, model.predict(x))])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{steps} steps, {count} images of {size} px: {peak:.0f} MB, {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
