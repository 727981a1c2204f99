"""One cell of a thorough audit at 224 px on random images: python -m benchmarks.full_size_audit --out FILE.

A network with random weights classifies them as it likes, and its answers are their labels: the work is
that of an audit of as many photographs, the figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torchvision

import upi
from benchmarks.common import images, lively
from upi.audit.run import Audit
from upi.audit.settings import AuditSettings
from upi.audit.work import Runner, Work, carry_out
from upi.experiments.fitting import Splits
from upi.experiments.stages import StageStore

BATCH, EVALUATED = 32, 125


def splits_of(model: upi.Classifier, sizes: dict[str, int], side: int) -> Splits:
    """Random images with the network's own answers as labels."""
    parts = {}
    for name, size in (("fit", BATCH), ("select", EVALUATED), ("test", EVALUATED)):
        x = images(sizes[name], side) * 0.8 + 0.2 * torch.rand(sizes[name], 3, 1, 1)
        x = x[torch.randperm(len(x))].clamp(0, 1)
        parts[name] = [(part, model.predict(model.place(part)).cpu()) for part in torch.split(x, size)]
    return Splits(parts["fit"], parts["select"], parts["test"], {"fingerprint": "random", "seed": 0})


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []

    def __call__(self, name: str) -> Callable[[int, int], None]:
        self.begun.append((name, time.perf_counter()))
        print(f"{time.strftime('%X')} {name}", flush=True)
        return lambda done, total: None


def main() -> None:
    """Run one radius and one fit of each attack, with everything else as in a thorough audit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--tf32", action="store_true")
    chosen = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = chosen.tf32
    torch.manual_seed(0)
    net = lively(getattr(torchvision.models, chosen.arch)()).to(chosen.device)
    model, n = upi.Classifier(net, tf32=chosen.tf32), chosen.images
    settings = AuditSettings.model_validate(
        {
            "effort": "thorough",
            "network": {"model": chosen.arch},
            "perturbations": {"radii": [2.0], "fits": 1},
        }
    )
    splits = splits_of(model, {"fit": n + n // 2, "select": n // 2, "test": n}, chosen.side)
    begin = time.perf_counter()
    with TemporaryDirectory() as folder:
        clock = Clock()
        work = Work(Audit(settings, model, splits, Path(folder)), StageStore(Path(folder), clock))
        parts = work.audit.parts()
        carry_out([work], Runner())
        found = work.found()
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if chosen.device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
        "arch": chosen.arch,
        "tf32": chosen.tf32,
        "images": n,
        "passes": parts,
        "seconds": dict(found.seconds),
        "whole": time.perf_counter() - begin,
        "failures": [dict(failure) for failure in found.failures],
    }
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
