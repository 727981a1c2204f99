"""``upi reproduce public-networks`` on random weights and random images: both groups, end to end."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.datasets.test_sources import photographs, write_parquet
from tests.models.test_public import weights
from upi.attacks.protocol import PROTOCOL, PROTOCOLS
from upi.cli.app import app
from upi.experiments.reproduce.directions import radial_frequency
from upi.experiments.reproduce.panel import GROUPS, panel_settings
from upi.experiments.reproduce.settings import Settings, Work
from upi.models import public

pytestmark = pytest.mark.slow

command = importlib.import_module("upi.cli.commands.reproduce")
directions = importlib.import_module("upi.experiments.reproduce.directions")
lab = importlib.import_module("upi.experiments.reproduce.lab")

WORK = Work(n_fit=12, n_select=8, n_test=12, batch=6, steps=2, per_image_steps=2, pca_draws=1, fits=2)
NETS = {"public-cifar10": "cifar10-resnet20", "public-imagenet": "photos-resnet20"}


def small(name: str, scale: str, preset: str, *, seed: int) -> Settings:
    """The real settings with next to no work, on networks of 20 layers."""
    found = panel_settings(name, scale, preset, seed=seed)
    cells = tuple(replace(cell, work=WORK) for cell in found.cells)
    return replace(
        found,
        cells=cells,
        rest=cells[:1],
        architectures=(NETS[name],),
        n_fit=12,
        n_select=8,
        n_curve=6,
        n_transfer=8,
        power_steps=(1, 2),
        maps=("gradient", "integrated_gradients"),
        radii=(1.0,),
        size=32 if found.size else None,
    )


@pytest.fixture(autouse=True)
def _little_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        write_parquet(data / "cifar10" / f"{split}.parquet", (3, 32, 32), [k % 10 for k in range(40)])
    photographs(data / "imagenet-sample" / "val.parquet", [(40, 36), (36, 48)] * 24)
    path = weights(data)
    cifar = public.PUBLIC["cifar10-resnet20"]
    photos = replace(cifar, name="photos-resnet20", dataset="imagenet-sample", classes=1000)
    monkeypatch.setitem(public.PUBLIC, "photos-resnet20", photos)
    state = load_file(path)
    state["linear.weight"], state["linear.bias"] = torch.randn(1000, 64), torch.zeros(1000)
    save_file(state, path.with_name("photos-resnet20.safetensors"))
    monkeypatch.setenv("UPI_DATA", str(data))
    monkeypatch.setattr(command, "panel_settings", small)
    monkeypatch.setattr(directions, "COMPONENTS", 4)
    monkeypatch.setitem(PROTOCOLS, "protocol", replace(PROTOCOL, components=3))
    # random weights and labels: call whatever the network says of an image its label
    real = lab.load_parts

    def labelled(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        shape = found.shape
        name = NETS["public-cifar10" if shape.classes == 10 else "public-imagenet"]
        model, _ = lab.public_classifier(name, shape=shape)
        parts = {
            key: replace(part, labels=model.predict(part.images[:])) if len(part) else part
            for key, part in found.parts.items()
        }
        return replace(found, parts=parts)

    monkeypatch.setattr(lab, "load_parts", labelled)


def test_both_groups_are_measured_and_published(tmp_path: Path) -> None:
    out, publish = tmp_path / "run", tmp_path / "results"
    arguments = ["reproduce", "public-networks", "--out", str(out), "--publish", str(publish)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    for name, folder in GROUPS.items():
        found = json.loads((out / folder / "results.json").read_text())
        assert found["failures"] == []
        assert found["images"] == ("cifar10" if folder == "cifar10" else "imagenet-sample")
        assert [c["arch"] for c in found["classifiers"]] == [NETS[name]]
        assert found["classifiers"][0]["test_accuracy"] == 1.0
        assert found["classifiers"][0]["origin"].startswith("akamaster")
        rows = {row["name"] for row in found["table1"][0]["rows"]}
        assert {"upi-pca", "upi-grad", "per-image", "per-image-one-step", "random"} <= rows
        readme = (publish / folder / "README.md").read_text()
        assert "akamaster" in readme
        assert "failed" not in readme
        assert "theory" not in found
    cifar = json.loads((out / "cifar10" / "results.json").read_text())
    assert [len(form["change"]) for form in cifar["components"]["forms"]] == [4, 4, 4]
    kinds = {point["kind"] for point in cifar["subspace"]["points"]}
    assert kinds == {"span", "whole", "random"}  # 12 rows allow no span of 8
    assert {"components.png", "subspace.png"} <= {f.name for f in (publish / "cifar10").iterdir()}
    page = (out / "cifar10" / "report.html").read_text()
    assert "What leading vectors look like" in page
    assert "The formal statements" not in page


def test_frequency_of_known_patterns() -> None:
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    flat, board = torch.ones(1, 16, 16), ((-1.0) ** (rows + columns))[None]
    stripes = torch.cos(2 * torch.pi * rows / 4)[None]
    assert radial_frequency(flat) == pytest.approx(0)
    assert radial_frequency(board) == pytest.approx(0.5 * 2**0.5)
    assert radial_frequency(stripes) == pytest.approx(0.25)
