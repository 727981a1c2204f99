"""``upi reproduce`` end to end on small random images: whole, interrupted, and with a failure."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.datasets.test_sources import write_parquet
from upi.attacks.protocol import PROTOCOL, PROTOCOLS
from upi.cli.app import app
from upi.core.errors import RunFolderError
from upi.experiments.reproduce.settings import Settings, Work
from upi.models.recipes import Plan
from upi.models.training import Recipe

pytestmark = pytest.mark.slow

command = importlib.import_module("upi.cli.commands.reproduce")
known = importlib.import_module("upi.experiments.reproduce.settings")
lab = importlib.import_module("upi.experiments.reproduce.lab")
table1 = importlib.import_module("upi.experiments.reproduce.table1")

WORK = Work(n_fit=24, n_select=10, n_test=24, batch=12, steps=2, per_image_steps=2, pca_draws=1, fits=2)


def small(dataset: str, scale: str, preset: str, *, seed: int) -> Settings:
    """The real settings with next to no work."""
    found: Settings = known.settings(dataset, scale, preset, seed=seed)
    cells = tuple(replace(cell, work=WORK) for cell in (found.cells[0], found.cells[3]))
    return replace(
        found,
        cells=cells,
        rest=cells[:1],
        n_fit=30,
        n_select=12,
        radii=(0.5, 1.0),
        n_curve=24,
        n_transfer=24,
        fit_counts=(4, 8),
        power_steps=(1, 2),
        theory_images=1,
        other=None,
    )


@pytest.fixture(autouse=True)
def _little_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    write_parquet(data / "mnist" / "train.parquet", (1, 28, 28), [k % 10 for k in range(80)])
    write_parquet(data / "mnist" / "test.parquet", (1, 28, 28), [k % 10 for k in range(60)])
    monkeypatch.setenv("UPI_DATA", str(data))
    little_work(monkeypatch)


def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small settings, short training, few candidates."""
    monkeypatch.setattr(command, "settings", small)
    monkeypatch.setitem(PROTOCOLS, "protocol", replace(PROTOCOL, components=3, components_of_slow_maps=2))
    recipe = Recipe(epochs=40, batch_size=20)
    monkeypatch.setattr(lab, "plan", lambda *names, seed: Plan(0.1, replace(recipe, seed=seed)))
    # random labels: let the test images be training images, so that some are classified correctly
    real = lab.load_parts

    def seen(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        return replace(found, parts={**found.parts, "test": found["train"]})

    monkeypatch.setattr(lab, "load_parts", seen)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", "mnist", *arguments])


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


NETS = ("--arch", "small-cnn", "--arch", "resnet18")


def test_everything_is_written(tmp_path: Path) -> None:
    out, publish = tmp_path / "run", tmp_path / "results"
    done = run("--out", str(out), "--publish", str(publish), *NETS)
    assert done.exit_code == 0, done.output
    found = results(out)
    assert found["failures"] == []
    assert [c["arch"] for c in found["classifiers"]] == ["small-cnn", "resnet18"]
    assert [t["arch"] for t in found["table1"]] == ["small-cnn", "small-cnn", "resnet18"]
    for table in found["table1"]:
        names = [row["name"] for row in table["rows"]]
        assert {"upi-pca", "upi-grad", "class-uap", "per-image", "random"} <= set(names)
        assert len(table["seed_spread"]["upi-grad"]["means"]) == 2
    assert found["transfer_networks"]["columns"] == ["small-cnn", "resnet18"]
    assert len(found["transfer_networks"]["rows"]) == 5
    assert found["transfer_maps"]["columns"] == ["gradient", "integrated_gradients", "smoothgrad", "grad_cam"]
    assert len(found["correlation"]["cosine"]) == 4
    assert [p["arch"] for p in found["theory"]["problems"]] == [None, "small-cnn", "resnet18"]
    figures = {file.name for file in (out / "figures").glob("*.png")}
    assert {"figure-1-before-after.png", "figure-2-perturbations.png", "figure-3-correlation.png"} <= figures
    assert {"eps-curve.png", "thresholds.png", "fitting-images.png", "spectrum-and-power.png"} <= figures
    assert "subspace.png" in figures
    assert found["subspace"]["dimensions_of_images"] == 784
    page = (out / "report.html").read_text()
    assert "Table 2: transfer" in page
    assert page.count("data:image/png") == 9
    assert {file.name for file in publish.iterdir()} == {"README.md", "results.json", *figures}
    table = (publish / "README.md").read_text()
    assert table.count("| small CNN ×0.1 |") >= 3
    assert "failed" not in table


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real, calls = tmp_path / "run", table1.study, []

    def stop(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(table1, "study", stop)
    assert run("--out", str(out), "--arch", "small-cnn").exit_code == 130
    assert not (out / "results.json").exists()
    other = run("--out", str(out), "--arch", "small-cnn", "--seed", "1")
    assert other.exit_code == 2
    assert "other options (seed)" in other.output
    assert run("--out", str(out), "--arch", "small-cnn").exit_code == 0
    assert len(calls) == 3  # one done, one interrupted and repeated
    first = results(out)
    assert run("--out", str(out), "--resume", "--arch", "small-cnn").exit_code == 0
    assert len(calls) == 3
    assert results(out)["table1"] == first["table1"]


def test_a_failing_network_does_not_lose_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "run", lab.trained_or_cached

    def broken(arch: str, *args: Any, **options: Any) -> Any:
        if arch == "resnet18":
            raise RuntimeError("no memory left")
        return real(arch, *args, **options)

    monkeypatch.setattr(lab, "trained_or_cached", broken)
    done = run("--out", str(out), *NETS)
    assert done.exit_code == 2
    found = results(out)
    assert {f["stage"] for f in found["failures"]} >= {"train/resnet18"}
    good = [t for t in found["table1"] if t["arch"] == "small-cnn"]
    assert all(table["error"] is None for table in good)
    assert all("no memory left" in t["error"] for t in found["table1"] if t["arch"] == "resnet18")
    assert "no memory left" in (out / "report.html").read_text()
    assert "no memory left" in (out / "tables.md").read_text()
    assert found["transfer_networks"]["columns"] == ["small-cnn"]
    monkeypatch.setattr(lab, "trained_or_cached", real)
    assert run("--out", str(out), "--resume", *NETS).exit_code == 0
    assert results(out)["failures"] == []


def test_a_run_of_every_network_can_be_resumed(tmp_path: Path) -> None:
    """The option that was not given is written as an empty list, and read as nothing."""
    options: tuple[object, ...] = ([], None)
    for written in options:
        (tmp_path / "config.json").write_text(json.dumps({"options": {"seed": 0, "arch": written}}))
        command._check(tmp_path, {"seed": 0, "arch": None})
        with pytest.raises(RunFolderError, match=r"other options \(arch\)"):
            command._check(tmp_path, {"seed": 0, "arch": ["vgg16"]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["fashion"], "unknown dataset 'fashion'"), (["mnist", "--scale", "huge"], "unknown scale 'huge'")],
)
def test_bad_names(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "settings", known.settings)
    done = CliRunner().invoke(app, ["reproduce", *arguments])
    assert done.exit_code == 2
    assert message in done.output


def test_the_real_settings_are_whole() -> None:
    for dataset in known.DATASETS:
        for scale in ("small", "full"):
            found = known.settings(dataset, scale)
            assert len({cell.key for cell in found.cells}) == len(found.cells)
            assert {cell.norm for cell in found.cells} == {"l2", "linf"}
            assert {cell.saliency for cell in found.cells} == {"gradient", "integrated_gradients"}
            assert all(cell.work.fits == 3 for cell in found.cells)
            assert found.lead == "vgg16"
            assert found.main in found.rest
    assert torch.get_num_threads() >= 1


def test_two_workers_do_every_stage_together(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.experiments.reproduce.work", str(out)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, **words, "RANK": str(rank), "UPI_CACHE": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert "Report:" in printed[0]
    assert printed[1] == ""
    found = results(out)
    assert found["failures"] == []
    assert found["spectrum"]["n"] == 24
