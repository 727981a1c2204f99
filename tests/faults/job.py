"""A fit that another process kills: python -m tests.faults.job FOLDER STEPS."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import upi
from upi.core import keeping


def main(folder: Path, steps: int) -> None:
    """Fit with the state written after every step; the pattern is in FOLDER/pattern at the end."""
    torch.set_num_threads(1)
    keeping.LEAST, keeping.SHARE = 0.0, 1e9
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    images = [torch.rand(8, 1, 8, 8) for _ in range(5)]
    attack = upi.UPIGrad(net, eps=1.0, steps=steps)
    print("ready", flush=True)
    pattern = attack.fit(images, keep=folder / "state")
    pattern.save(folder / "pattern")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
