"""Results files: what is written can be read, what is damaged is named, what is old is brought up to date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import upi
from tests.conftest import Batches
from upi.core.errors import RunFolderError
from upi.results.building import new_run
from upi.results.folder import RunFolder
from upi.results.reading import read
from upi.results.reproduction import Reproduction
from upi.results.schema import VERSION, Config, Metrics

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parents[2] / "results"


def metrics_of(net: nn.Module, loader: Batches) -> dict[str, Any]:
    """metrics.json of a small evaluation."""
    noise = upi.RandomPerturbation(net, eps=1.0).pattern((1, 8, 8))
    table = upi.evaluate(net, {"upi-grad": noise, "mine": noise}, loader, draws=1)
    return {
        "schema": VERSION,
        "dataset": "noise",
        "model": {"arch": "net", "fingerprint": "0" * 64},
        "tables": [{"key": "gradient", **table.to_dict()}],
        "flags": [{"table": "gradient", **flag.to_dict()} for flag in table.flags],
        "seconds": {"total": 1.0},
    }


def test_an_evaluation_is_read_back_as_it_was(relu_net: nn.Module, loader: Batches) -> None:
    content = metrics_of(relu_net, loader)
    metrics = read(Metrics, json.loads(json.dumps(content)), Path("metrics.json"))
    assert metrics.tables[0].map_title == "simple-gradient map"
    assert [row.name for row in metrics.tables[0].rows] == [r["name"] for r in content["tables"][0]["rows"]]
    rows = {row.name: row for row in metrics.tables[0].rows}
    assert rows["upi-grad"].title == "UPI-Grad"
    assert rows["mine"].title == "mine"
    assert rows["per-image"].kind == "per-image"
    assert rows["random"].dissimilarity.n == metrics.tables[0].n_test == 48


def test_files_of_version_1_get_the_titles_that_they_leave_out(relu_net: nn.Module, loader: Batches) -> None:
    content = metrics_of(relu_net, loader)
    new = read(Metrics, content, Path("x"))
    old = json.loads(json.dumps({**content, "schema": 1}))
    del old["tables"][0]["map_title"]
    for row in old["tables"][0]["rows"]:
        del row["title"], row["colour"]
    assert read(Metrics, old, Path("x")) == new


def test_what_is_missing_is_named(relu_net: nn.Module, loader: Batches) -> None:
    content = metrics_of(relu_net, loader)
    del content["tables"][0]["rows"][1]["spearman"]
    content["model"].pop("arch")
    with pytest.raises(
        RunFolderError, match=r"m\.json: does not follow schema 2: model\.arch: Field required"
    ) as e:
        read(Metrics, content, Path("m.json"))
    assert "tables.0.rows.1.spearman: Field required" in str(e.value)
    with pytest.raises(RunFolderError, match="expected schema 2 or 1, got 7"):
        read(Metrics, {**content, "schema": 7}, Path("m.json"))


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("results.json")), ids=lambda path: path.parent.name)
def test_every_kept_reproduction_can_be_read(path: Path) -> None:
    content = json.loads(path.read_text())
    results = read(Reproduction, content, path)
    assert len(results.table1) == len(content["table1"])
    assert all(cell.error or cell.rows for cell in results.table1)  # type: ignore[union-attr]
    damaged = json.loads(path.read_text())
    parts = {"transfer_networks": "rows", "eps_curve": "points", "correlation": "cosine"}
    study = next(key for key in parts if key in damaged)
    damaged[study].pop(parts[study])
    with pytest.raises(RunFolderError, match="does not follow schema"):
        read(Reproduction, damaged, path)


def test_a_failed_stage_needs_no_results() -> None:
    path = next(RESULTS.rglob("results.json"))
    content = json.loads(path.read_text())
    content["transfer_networks"] = {"stage": "transfer/networks", "error": "boom", "seconds": 0.0}
    first = content["table1"][0]
    content["table1"][0] = {key: first[key] for key in ("arch", "cell", "stage", "seconds")} | {
        "error": "boom"
    }
    content["classifiers"][0] = {"arch": first["arch"], "stage": "train", "seconds": 0.0, "error": "boom"}
    results = read(Reproduction, content, path)
    assert results.table1[0].error == results.classifiers[0].error == "boom"
    content["classifiers"][0]["error"] = None
    with pytest.raises(RunFolderError, match="a network without parameters, test_accuracy"):
        read(Reproduction, content, path)


def test_json_that_is_no_object_is_refused(tmp_path: Path) -> None:
    with new_run(tmp_path / "run") as folder:
        folder.write_json("config.json", {"command": "x"})
    (tmp_path / "run" / "metrics.json").write_text("[1]")
    with pytest.raises(RunFolderError, match="expected a JSON object, got list"):
        RunFolder(tmp_path / "run").metrics()


def test_options_of_a_run_are_read_as_they_were_written() -> None:
    """They name a map, a norm and a radius as tables do, and are none."""
    options = {"saliency": "gradient", "norm": "l2", "eps": "2.0"}
    config = read(Config, {"command": "fit", "options": options}, Path("config.json"))
    assert config.options == options
    assert config.plain().keys() == Config(command="fit").plain().keys()


def test_tables_without_a_version_are_refused(relu_net: nn.Module, loader: Batches) -> None:
    content = metrics_of(relu_net, loader)
    del content["schema"]
    with pytest.raises(RunFolderError, match="schema: Field required"):
        read(Metrics, content, Path("m.json"))
