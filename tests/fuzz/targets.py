"""Readers of files that others may have made, each with a small good file to start from.

A reader may give a result or one of this library's errors. Anything else is a fault: another exception, a
file outside its folder, a second of thinking.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save

import upi
from upi.audit.file import checked, parsed, read_text
from upi.audit.publish import entries
from upi.audit.settings import AuditSettings
from upi.audit.sweep import SweepSettings
from upi.core.errors import UPIError
from upi.core.keeping import Keeper
from upi.data.shape import Shape
from upi.datasets.splits import load
from upi.models.classifiers import load_classifier
from upi.models.hardened import FILE as HARDENED, Hardened
from upi.models.nets import NETS
from upi.models.registry import Request
from upi.models.trained import Trained, load_trained
from upi.models.weights import read_weights
from upi.perturbation.subspace import Subspace
from upi.results.folder import RunFolder


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: Reads the file at a path.
        name: What the file is called.
        seeds: Good files.
    """

    read: Callable[[Path], Any]
    name: str
    seeds: Callable[[Path], list[bytes]]


def _saved(write: Callable[[Path], Any]) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        write(folder / "seed.safetensors")
        return [(folder / "seed.safetensors").read_bytes()]

    return seeds


def _pattern(path: Path) -> object:
    delta = torch.linspace(-0.1, 0.1, 16).view(1, 4, 4)
    return upi.Perturbation(delta, upi.Ball("l2", 1.0), {"method": "upi-grad"}).save(path)


def _subspace(path: Path) -> object:
    return Subspace(torch.eye(4).view(4, 1, 2, 2)[:2].contiguous(), (2.0, 1.0), {"k": 2}).save(path)


def _net() -> torch.nn.Module:
    torch.manual_seed(0)
    return NETS["small-cnn"](Shape(1, 4, 2), 0.07)


ABOUT = {"arch": "small-cnn", "width": 0.07, "channels": 1, "size": 4, "classes": 2}


def _trained(path: Path) -> None:
    Trained(_net(), "small-cnn", ABOUT).save(path)


def _hardened(path: Path) -> None:
    Hardened(NETS["small-cnn"](Shape(1, 4, 2), 1.0), Request("zoo/small-cnn"), ABOUT).save(path)


def _state(path: Path) -> object:
    Keeper(path, {"job": 1}).write({"delta": torch.zeros(1, 1, 2, 2)}, {"history": [0.5]})
    return path


def _checkpoint(folder: Path) -> list[bytes]:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"module.weight": torch.zeros(2, 2)}}, buffer)
    return [buffer.getvalue()]


def _weights(folder: Path) -> list[bytes]:
    return [save({"weight": torch.zeros(2, 2)})]


def _toml(folder: Path) -> list[bytes]:
    text = (
        '[network]\nmodel = "m"\n[perturbations]\nradii = [1.0, "8/255"]\n'
        '[[threshold]]\nmetric = "ssim"\nat_least = 0.5\n'
    )
    return [text.encode()]


def _sweep(folder: Path) -> list[bytes]:
    text = '[[network]]\nmodel = "m"\nname = "a"\n[[network]]\nmodel = "n"\n[perturbations]\nfits = 2\n'
    return [text.encode()]


def _json(folder: Path) -> list[bytes]:
    settings = AuditSettings.model_validate({"network": {"model": "m"}}).plain()
    return [json.dumps({"command": "audit", "argv": ["upi"], "audit": settings}).encode()]


def _metrics(folder: Path) -> list[bytes]:
    from tests.results.test_schema import metrics_of

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    x = torch.rand(4, 1, 8, 8)
    return [json.dumps(metrics_of(net, [(x, net(x).argmax(1))])).encode()]


def _entry(folder: Path) -> list[bytes]:
    board = Path(__file__).parents[2] / "results" / "leaderboard"
    return [path.read_bytes() for path in sorted(board.glob("*/entry.json"))[:1]]


def _pictures(folder: Path) -> list[bytes]:
    found = []
    for form, options in (("PNG", {}), ("JPEG", {}), ("GIF", {"save_all": True}), ("BMP", {}), ("WEBP", {})):
        buffer = io.BytesIO()
        Image.new("RGB", (9, 7), (200, 30, 90)).save(buffer, form, **options)
        found.append(buffer.getvalue())
    return found


def _parquet(folder: Path) -> list[bytes]:
    import pandas as pd

    rows = {"image": [{"bytes": each, "path": None} for each in _pictures(folder)[:1]], "label": [0]}
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    return [buffer.getvalue()]


def _report_input(folder: Path) -> list[bytes]:
    return [json.dumps({"command": "evaluate", "argv": ["upi", "evaluate"], "classes": ["a"]}).encode()]


def _read_picture(path: Path) -> object:
    data = load(str(path.parents[1]))
    return data.images[:1]


def _read_parquet(path: Path) -> object:
    data = load(str(path.parent))
    return data.images[:1]


TARGETS = {
    "perturbation": Target(upi.Perturbation.load, "a.safetensors", _saved(_pattern)),
    "subspace": Target(Subspace.load, "a.safetensors", _saved(_subspace)),
    "classifier": Target(load_trained, "a.safetensors", _saved(_trained)),
    "hardened": Target(
        lambda path: load_classifier(str(path), shape=Shape(1, 4, 2)), HARDENED, _saved(_hardened)
    ),
    "weights": Target(read_weights, "a.pt", _checkpoint),
    "safe-weights": Target(read_weights, "a.safetensors", _weights),
    "state": Target(lambda path: Keeper(path, {"job": 1}).load({"delta"}), "a.state", _saved(_state)),
    "audit-toml": Target(lambda path: checked(read_text(path)[1], "a", path.read_text()), "a.toml", _toml),
    "sweep-toml": Target(
        lambda path: parsed(SweepSettings, read_text(path, "sweep")[1], "a", path.read_text()),
        "a.toml",
        _sweep,
    ),
    "audit-json": Target(lambda path: checked(read_text(path)[1], "a"), "a.json", _json),
    "metrics": Target(lambda path: RunFolder(path.parent).metrics(), "metrics.json", _metrics),
    "config": Target(lambda path: RunFolder(path.parent).config(), "config.json", _report_input),
    "entry": Target(lambda path: entries(path.parents[1]), "entry/entry.json", _entry),
    "picture": Target(_read_picture, "class/a.png", _pictures),
    "parquet": Target(_read_parquet, "train.parquet", _parquet),
}


class ReaderError(AssertionError):
    """A reader did what it may not."""


def tried(target: Target, folder: Path, content: bytes) -> object:
    """What a reader makes of a content: its result, or this library's error.

    Raises:
        ReaderError: It did anything else, or wrote outside the file.
    """
    path = folder / target.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        result: object = target.read(path)
    except UPIError as error:
        result = error
    except Exception as error:
        raise ReaderError(f"{type(error).__name__}: {error}") from error
    extra = [str(each) for each in folder.rglob("*") if each.is_file() and each != path]
    if extra:
        raise ReaderError(f"wrote {extra}")
    return result
