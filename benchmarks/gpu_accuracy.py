"""Attack gradients on a GPU beside a CPU's in float64: python -m benchmarks.gpu_accuracy [--device cuda].

Every map on quarter-width networks for 32 x 32 images, with TF32 in convolutions (PyTorch's default) and
without, by the quick path and by autograd's own: relative l2 error. Maps of attention need a transformer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from copy import deepcopy

import torch

from benchmarks.common import images, lively, problem
from upi.core.errors import UPIError
from upi.data.shape import Shape
from upi.models.nets import NETS
from upi.saliency import MAPS

NETWORKS = (("vgg16", 0.25), ("resnet18", 0.25), ("mobilenet_v2", 0.25), ("vit", 0.34))


def errors(arch: str, width: float, name: str, device: str) -> Iterator[float]:
    """Relative errors: quick with TF32 and without, autograd's own with TF32 and without."""
    torch.manual_seed(0)
    net, x = lively(NETS[arch](Shape(3, 32, 10), width)), images(4, 32)
    reference = problem(deepcopy(net).double(), x.double(), saliency=MAPS[name]()).step(fast=False).gradient
    for fast in (True, False):
        for tf32 in (True, False):
            torch.backends.cudnn.allow_tf32 = tf32
            task = problem(deepcopy(net).to(device), x.to(device), saliency=MAPS[name](), tf32=tf32)
            found = task.step(fast=fast).gradient.double().cpu()
            yield float((found - reference).norm() / reference.norm())


def main() -> None:
    """Print a line for each network and map."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = parser.parse_args().device
    print(f"torch {torch.__version__}, {device}; quick TF32, quick, plain TF32, plain")
    for arch, width in NETWORKS:
        for name in MAPS:
            try:
                line = " ".join(f"{error:.1e}" for error in errors(arch, width, name, device))
            except UPIError as error:
                line = str(error)[:60]
            print(f"{arch} {name}: {line}", flush=True)


if __name__ == "__main__":
    main()
