"""Two workers, each with half of the images, take the steps of one worker with all of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import upi

pytestmark = pytest.mark.slow
WORKER = """
import sys, torch, torch.distributed as dist, upi
from tests.conftest import convolutional, images
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.set_num_threads(1)
net, x = convolutional(torch.nn.ReLU), images(12)
half = [x[:4]] if rank == 0 else [x[4:]]
kw = {"eps": 0.5, "sigma": 0.0, "steps": 5}
for name, attack in {"grad": upi.UPIGrad(net, **kw), "class": upi.ClassUAP(net, eps=0.5, steps=5)}.items():
    attack.fit(half).save(f"{folder}/{name}-{rank}.safetensors")
dist.destroy_process_group()
"""


def test_two_workers_equal_one(tmp_path: Path) -> None:
    from tests.conftest import convolutional, images

    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", textwrap.dedent(WORKER)]
    workers = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=root) for rank in (0, 1)]
    assert [worker.wait() for worker in workers] == [0, 0]
    net, loader = convolutional(torch.nn.ReLU), [images(12)]
    alone = {
        "grad": upi.UPIGrad(net, eps=0.5, sigma=0.0, steps=5).fit(loader),
        "class": upi.ClassUAP(net, eps=0.5, steps=5).fit(loader),
    }
    for name, expected in alone.items():
        for rank in (0, 1):
            found = upi.Perturbation.load(tmp_path / f"{name}-{rank}.safetensors")
            torch.testing.assert_close(found.delta, expected.delta, rtol=1e-4, atol=1e-6)
            assert found.provenance["history"] == pytest.approx(expected.provenance["history"], rel=1e-4)
