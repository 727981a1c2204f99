"""``upi sweep`` end to end: pieces in processes, on a cluster, and none of them twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from tests.cli.test_command_line import SLICE, run
from upi.audit.jobs import Bench, Job
from upi.audit.opening import open_subject
from upi.audit.remote import Request, answer
from upi.audit.settings import AuditSettings
from upi.core.rows import NOISE
from upi.experiments.stages import Outcome, StageStore

pytestmark = pytest.mark.slow

TOML = """\
effort = "quick"
[[network]]
model = "{place}/train"
name = "mine"
[[network]]
model = "{place}/other"
[images]
n_fit = 48
n_select = 24
n_test = 24
[explanations]
maps = ["gradient"]
[perturbations]
radii = [1.0, {radius}]
methods = ["upi-grad", "mean-gradient"]
fits = {fits}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two trained networks and a finished sweep over them, ``one``."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPI_CACHE", str(folder / "cache"))
        for name, seed in (("train", 0), ("other", 1)):
            run("train", *SLICE, "--epochs", "2", "--seed", seed, "--out", folder / name)
        write(folder, radius=2.0, fits=1)
        (folder / "said.txt").write_text(
            run("sweep", folder / "sweep.toml", "--engine", "local:2", "--out", folder / "one")
        )
        yield folder


def write(place: Path, *, radius: float, fits: int) -> None:
    (place / "sweep.toml").write_text(TOML.format(place=place, radius=radius, fits=fits))


def pieces(out: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((out / "sweep.json").read_text())["pieces"]
    return found


def digests(folder: Path, files: str) -> dict[str, str]:
    """SHA-256 of files by their place."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(files))
    }


def patterns(out: Path) -> dict[str, str]:
    return digests(out, "networks/*/cells/*/fits/*.safetensors")


def test_a_sweep_has_a_line_for_every_row_of_every_cell(place: Path) -> None:
    lines = pd.read_csv(place / "one" / "sweep.csv")
    cells = lines.groupby(["network", "map", "norm", "eps"])
    assert list(cells.groups) == [
        (name, "gradient", "l2", eps) for name in ("mine", "other") for eps in (1.0, 2.0)
    ]
    assert cells["strongest"].sum().tolist() == [1] * 4
    assert set(lines["row"]) >= {"upi-grad", "mean-gradient", NOISE, "per-image"}
    for name in ("mine", "other"):
        tables = json.loads((place / "one/networks" / name / "metrics.json").read_text())["tables"]
        rows = {(table["eps"], row["name"]): row for table in tables for row in table["rows"]}
        for line in lines[lines["network"] == name].itertuples():
            row = rows[line.eps, line.row]
            noise = rows[line.eps, NOISE]["dissimilarity"]["mean"]
            assert line.change == pytest.approx(row["dissimilarity"]["mean"])
            assert line.excess_over_noise == pytest.approx(row["dissimilarity"]["mean"] - noise)
    assert pieces(place / "one") == {"done": 12, "known": 0}
    page = (place / "one/report.html").read_text()
    assert "of 4 cells one fixed pattern" in page
    assert all((place / "one/networks" / name / "report.html").is_file() for name in ("mine", "other"))
    assert "networks/other/report.html" in page


def test_a_sweep_is_an_audit_of_each_network(place: Path) -> None:
    """The same pieces in this process, one after the other, give the same bytes."""
    config = place / "one/networks/mine/config.json"
    run("audit", "--config", config, "--out", place / "audit", code=3)
    once = digests(place / "audit", "cells/*/*.safetensors")
    again = digests(place / "one/networks/mine", "cells/*/*.safetensors")
    assert len(once) == 6
    assert once == again
    tables = [
        json.loads((folder / "metrics.json").read_text())["tables"]
        for folder in (place / "audit", place / "one/networks/mine")
    ]
    assert tables[0] == tables[1]


def test_a_second_call_does_what_is_missing(place: Path) -> None:
    out = place / "two"
    shutil.copytree(place / "one", out)
    run("sweep", place / "sweep.toml", "--engine", "local:2", "--out", out)
    assert pieces(out) == {"done": 0, "known": 12}
    try:
        write(place, radius=1.5, fits=2)
        run("sweep", place / "sweep.toml", "--engine", "local:2", "--out", out)
    finally:
        write(place, radius=2.0, fits=1)
    # of each network: known are the first fits at 1.0; new are two second ones, four at 1.5, two tables
    assert pieces(out) == {"done": 16, "known": 4}
    assert patterns(place / "one").items() <= patterns(out).items()


def test_a_worker_keeps_nothing_of_a_sweep_for_one_of_another_kind(place: Path) -> None:
    """On a cluster that lives on, the next sweep may want more of the same images of the same network."""
    seen: list[tuple[int, str]] = []

    class Look:
        """A piece that looks at what it is given."""

        name, needs = "look", ()

        def make(self, bench: Bench, _: Any) -> dict[str, Any]:
            device = next(bench.model.net.parameters()).device
            seen.append((sum(len(x) for x, _ in bench.splits.fit), str(device)))
            return {"files": []}

    for effort, count in (("quick", 250), ("standard", 750), ("standard", 750)):
        settings = AuditSettings.model_validate(
            {"effort": effort, "network": {"model": str(place / "train")}, "images": {"n_train": 500}}
        )
        subject = open_subject(settings)
        asked = Request(
            0, settings.plain(), subject.about["fingerprint"], subject.splits.origin, cast(Job, Look())
        )
        outcome = answer(asked).outcome
        assert outcome.error is None, outcome.error
        assert seen[-1] == (count, "cpu")
    other = replace(asked, model="another")
    assert "finds other network" in str(answer(other).outcome.error)
    other = replace(asked, data={**asked.data, "seed": 1})
    assert "finds other images" in str(answer(other).outcome.error)
    other = replace(asked, versions={"torch": "0"})
    assert "the sweep was started with" in str(answer(other).outcome.error)


@contextmanager
def cluster() -> Iterator[Any]:
    """A Dask cluster of two worker processes on this machine; its scheduler's place."""
    from distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as found:
        yield found


def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    with cluster() as workers:
        keep = StageStore.take

        def take(self: StageStore, *arguments: Any) -> Outcome:
            """The first result that comes in costs a worker its life."""
            if not killed:
                killed.append(workers.workers[0].process.pid)
                os.kill(killed[0], signal.SIGKILL)
            return keep(self, *arguments)

        monkeypatch.setattr(StageStore, "take", take)
        address = workers.scheduler_address.removeprefix("tcp://")
        run("sweep", place / "sweep.toml", "--engine", f"dask://{address}", "--out", place / "cluster")
    assert killed
    assert patterns(place / "cluster") == patterns(place / "one")
    assert pieces(place / "cluster") == {"done": 12, "known": 0}


def test_an_audit_with_an_engine(place: Path) -> None:
    config = place / "one/networks/mine/config.json"
    said = run("audit", "--config", config, "--engine", "local:2", "--out", place / "engine", code=3)
    assert "cell: gradient-l2-2" in said
    found = [
        json.loads((folder / "metrics.json").read_text())["tables"]
        for folder in (place / "engine", place / "one/networks/mine")
    ]
    assert found[0] == found[1]


def test_what_is_wrong_with_one_network_does_not_stop_the_others(place: Path) -> None:
    text = (place / "sweep.toml").read_text().replace(f"{place}/other", "nowhere")
    (place / "half.toml").write_text(text)
    said = run("sweep", place / "half.toml", "--engine", "local:2", "--out", place / "half", code=2)
    assert "nowhere: ConfigError" in said
    assert "mine: " in said
    assert pd.read_csv(place / "half/sweep.csv")["network"].unique().tolist() == ["mine"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[network]]\nmodel = "a"\n[[network]]\nmodel = "b/a"\n',
            "two networks are called a: give them names",
        ),
        ('[[networks]]\nmodel = "a"\n', "[[networks]]"),
        ('[[network]]\nmodle = "a"\n', "line 2: unknown key 'modle'; did you mean 'model'?"),
        ('[[network]]\nmodel = "a"\nname = "../b"\n', "name"),
        ('threads = 0\n[[network]]\nmodel = "a"\n', "threads"),
        ("network = []\n", "network"),
    ],
)
def test_mistakes_in_the_file(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(text)
    assert said in run("sweep", tmp_path / "sweep.toml", "--out", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_other_mistakes(place: Path, tmp_path: Path) -> None:
    assert "name a file" in run("sweep", code=2)
    assert "dask://HOST:PORT" in run("sweep", place / "sweep.toml", "--engine", "spark", code=2)
    assert "not a sweep" in run("sweep", place / "sweep.toml", "--out", place / "train", code=2)
    run("sweep", "--init", tmp_path / "new.toml")
    assert "exists already" in run("sweep", "--init", tmp_path / "new.toml", code=2)
    said = run("sweep", tmp_path / "new.toml", "--out", tmp_path / "new", code=2)
    assert "mine" in said


def test_the_schema_is_that_of_a_sweep() -> None:
    found = json.loads(run("sweep", "--schema"))
    assert found["title"] == "sweep.toml of upi"
    assert found["properties"]["network"]["type"] == "array"
