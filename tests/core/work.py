"""What the workers of ``test_distributed`` do: every attack and an evaluation, written by the leading one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import upi
from tests.conftest import convolutional, images
from upi.attacks.mean_gradient import MeanGradient
from upi.core.distributed import leads, sharding
from upi.core.launch import workers

#: Images of a piece; batches of 5, 5 and 3 do not divide by it, nor by the workers.
SIZE, BATCHES = 2, (5, 5, 3)


def loader() -> list[tuple[Tensor, Tensor]]:
    """Three batches whose last is short, with labels of which some are wrong."""
    x = images(sum(BATCHES))
    label = upi.Classifier(network()).predict(x)
    label[::5] = (label[::5] + 1) % 4
    return list(zip(torch.split(x, BATCHES), torch.split(label, BATCHES), strict=True))


def network() -> nn.Module:
    """A small network, the same on every worker."""
    return convolutional(nn.ReLU)


def attacks(net: nn.Module) -> dict[str, Any]:
    """Every universal attack, UPI-PCA with every solver and kind of rows."""
    grad = {"eps": 0.5, "steps": 50}
    pca: dict[str, Any] = {"eps": 0.5, "seed": 3}
    return {
        "upi-grad": upi.UPIGrad(net, **grad),
        "upi-grad, priced, linf": upi.UPIGrad(
            net, eps=0.1, norm="linf", steps=10, prediction_price=0.5, clip=True
        ),
        "upi-grad, paper": upi.UPIGrad(net, eps=0.5, steps=10, preset="paper"),
        "class-uap": upi.ClassUAP(net, **grad),
        "mean-gradient": MeanGradient(net, eps=0.5),
        "gram": upi.UPIPCA(net, **pca),
        "gram, priced": upi.UPIPCA(net, prediction_price=0.5, **pca),
        "sketch": upi.UPIPCA(net, solver="sketch", rank=8, components=4, **pca),
        "power": upi.UPIPCA(net, solver="power", steps=7, **pca),
        "power, priced": upi.UPIPCA(net, solver="power", steps=7, prediction_price=0.5, **pca),
        "stein": upi.UPIPCA(net, rows="stein", draws=8, **pca),
        "curvature": upi.UPIPCA(net, rows="curvature", **pca),
    }


def work(folder: Path) -> None:
    """Fit everything, evaluate it, and write what came out."""
    data = loader()
    net = network()
    found = {}
    for name, attack in attacks(net).items():
        found[name] = attack.fit(data, select=data[:2])
        found[name].save(folder / f"{name}.safetensors")
    rows = {name: found[name] for name in ("upi-grad", "gram")}
    rows["per-image"] = upi.PerImageAttack(net, eps=0.5, steps=4)
    table = upi.evaluate(net, rows, data)
    content = {
        "table": table.to_dict(),
        "flags": [flag.to_dict() for flag in table.flags],
        "columns": {
            name: {key: values.tolist() for key, values in column.items()}
            for name, column in table.per_sample.items()
        },
    }
    if leads():
        (folder / "table.json").write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    rank, size, where = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    if size:
        meet = f"file://{where}/meet"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    with workers(), sharding(int(sys.argv[4]) if len(sys.argv) > 4 else SIZE):
        work(where)
    if size:
        dist.destroy_process_group()
