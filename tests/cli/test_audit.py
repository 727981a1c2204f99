"""``upi audit`` and ``upi compare`` end to end on a small slice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from junitparser import JUnitXml

import upi
from tests.cli.test_command_line import SLICE, run
from upi.audit.compare import Run, paired
from upi.audit.publish import entries, table_of
from upi.cli.record import shareable
from upi.core.errors import RunFolderError

pytestmark = pytest.mark.slow

TOML = """\
effort = "quick"
[network]
model = "{model}"
[images]
n_fit = 64
n_select = 40
n_test = 60
[[threshold]]
metric = "top_k_overlap"
at_least = 0.999
[[threshold]]
metric = "prediction_changed"
at_most = 0.9
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a trained network and its audit, ``one``."""
    folder = tmp_path_factory.mktemp("audit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPI_CACHE", str(folder / "cache"))
        run("train", *SLICE, "--epochs", "3", "--out", folder / "train")
        (folder / "audit.toml").write_text(TOML.format(model=folder / "train"))
        said = run(
            "audit", "--config", folder / "audit.toml", "--out", folder / "one", "--junit", folder / "a.xml",
            "--card", folder / "A.md", code=1,
        )  # fmt: skip
        (folder / "said.txt").write_text(said)
        yield folder


def metrics(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "metrics.json").read_text())
    return found


def test_an_audit_is_a_run_folder_with_a_verdict(place: Path) -> None:
    one = place / "one"
    verdict = json.loads((one / "verdict.json").read_text())
    assert verdict["exit_code"] == 1
    assert [check["outcome"] for check in verdict["checks"]] == ["failed", "passed"]
    assert metrics(one)["audit"]["verdict"] == verdict
    (table,) = metrics(one)["tables"]
    stem = table["perturbations"]["upi-grad"]
    pattern = upi.Perturbation.load(one / "perturbations" / f"{stem}.safetensors")
    assert pattern.ball.eps == pytest.approx(table["eps"])
    assert verdict["headline"] in (place / "said.txt").read_text()
    assert (place / "A.md").read_text() == (one / "AUDIT.md").read_text()
    suite = next(iter(JUnitXml.fromfile(str(place / "a.xml"))))
    assert (suite.tests, suite.failures) == (2, 1)


def test_the_cost_is_said_first(place: Path) -> None:
    said = (place / "said.txt").read_text()
    assert 0 < said.index("passes of the network") < said.index("radius: l2")


def test_images_of_the_training_are_kept_out(place: Path) -> None:
    data = json.loads((place / "one" / "config.json").read_text())["data"]
    trained = json.loads((place / "train" / "config.json").read_text())["data"]
    assert data["splits"]["train"] == trained["splits"]["train"] == 500
    assert data["seed"] == trained["seed"]


def test_the_proposed_radius_leaves_predictions_alone(place: Path) -> None:
    found = metrics(place / "one")["audit"]["proposals"]["l2"]
    assert found["changed"] <= 0.05
    above = [changed for eps, changed in found["probes"] if eps > found["eps"] * 1.3]
    assert above[0] > 0.05 or not above


def test_a_second_call_does_nothing_again_but_judges_by_other_thresholds(place: Path) -> None:
    again = place / "again"
    shutil.copytree(place / "one", again)
    stages = {path.name: path.stat().st_mtime_ns for path in (again / "stages").iterdir()}
    soft = place / "soft.toml"
    soft.write_text(TOML.format(model=place / "train").replace("0.999", "0.001"))
    said = run("audit", "--config", soft, "--out", again, code=0)
    assert "Passed" in said
    assert "Going on with an audit of 3 parts that was finished" in said
    assert {path.name: path.stat().st_mtime_ns for path in (again / "stages").iterdir()} == stages
    assert (again / "per_sample.parquet").read_bytes() == (place / "one" / "per_sample.parquet").read_bytes()


def test_a_lost_cell_is_measured_again_to_the_same_figures(place: Path) -> None:
    again = place / "lost"
    shutil.copytree(place / "one", again)
    key = metrics(again)["tables"][0]["key"]
    shutil.rmtree(again / "cells" / key)
    run("audit", "--config", place / "audit.toml", "--out", again, code=1)
    assert metrics(again)["tables"] == metrics(place / "one")["tables"]


def test_other_settings_in_the_same_folder_are_refused(place: Path) -> None:
    said = run("audit", "--config", place / "audit.toml", "--seed", "5", "--out", place / "one", code=2)
    assert "other settings (seed)" in said
    assert "another run, not an audit" in run(
        "audit", "--config", place / "audit.toml", "--out", place / "train", code=2
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a network"),
        (("--model", "m:x", "--quick", "--thorough"), "quick or thorough"),
        (("--model", "m:x", "--saliency", "gradeint"), "did you mean 'gradient'"),
        (("--model", "m:x", "--eps", "-1"), "above 0"),
        (("--model", "nothing-of-this-name"), "nothing-of-this-name"),
        (("--config", "none.toml"), "cannot be read"),
    ],
)
def test_what_cannot_run_is_two(place: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in run("audit", *arguments, "--out", place / "never", code=2)
    assert not (place / "never").exists()


def test_a_bug_is_neither_a_failure_nor_a_refusal(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("upi.audit.run.Audit.found", broken)
    said = run("audit", "--config", place / "audit.toml", "--out", place / "bug", code=70)
    assert "this is a bug of upi" in said


def test_init_and_schema(place: Path) -> None:
    run("audit", "--init", place / "new.toml", "--model", place / "train")
    assert "exists already" in run("audit", "--init", place / "new.toml", code=2)
    assert json.loads(run("audit", "--schema"))["required"] == ["network"]


def test_a_baseline_fixes_the_radii_and_gives_paired_differences(place: Path) -> None:
    two = place / "two"
    run("audit", "--config", place / "audit.toml", "--baseline", place / "one", "--out", two, code=1)
    lines = metrics(two)["audit"]["comparison"]
    assert {line["row"] for line in lines} >= {"strongest", "random", "per-image"}
    assert all(line["difference"] == pytest.approx(0) for line in lines)  # the same network
    other = TOML.format(model=place / "train").replace("n_test = 60", "n_test = 50")
    (place / "other.toml").write_text(other)
    said = run(
        "audit", "--config", place / "other.toml", "--baseline", place / "one", "--out", place / "x", code=2
    )
    assert "other images" in said


def test_differences_are_those_of_shared_images() -> None:
    before = {"sample": np.array([1, 2, 3, 5]), "dissimilarity": np.array([0.1, 0.2, 0.3, 0.9])}
    after = {"sample": np.array([2, 3, 4, 1]), "dissimilarity": np.array([0.3, 0.5, 9.0, 0.4])}
    found = paired(before, after, "dissimilarity")
    assert found.n == 3
    assert found.mean == pytest.approx((0.3 + 0.1 + 0.2) / 3)


def test_compare_writes_table_page_and_csv(place: Path) -> None:
    said = run("compare", place / "one", place / "train", code=2)  # a run without tables
    assert "metrics.json" in said
    two = place / "copy"
    shutil.copytree(place / "one", two, dirs_exist_ok=True)
    csv, page = place / "c.csv", place / "c.html"
    run("compare", place / "one", two, "--csv", csv, "--page", page)
    frame = pd.read_csv(csv)
    assert set(frame["second"]) == {"copy"}
    assert (frame["difference"].abs() < 1e-12).all()
    assert "paired difference" in page.read_text()
    assert "twice" in run("compare", place / "one", place / "one", code=2)
    assert Run.read(place / "one").row(metrics(place / "one")["tables"][0], "strongest") == "upi-grad"


def test_entries_make_a_sorted_table_and_nothing_else_does(place: Path) -> None:
    board = place / "board"
    run("audit", "--config", place / "audit.toml", "--out", place / "one", "--publish", board, code=1)
    ((name, entry),) = entries(board).items()
    (table,) = metrics(place / "one")["tables"]
    best = next(row for row in table["rows"] if row["name"] == table["strongest"])
    assert entry.lines[0].change.mean == best["dissimilarity"]["mean"]
    assert entry.lines[0].excess == pytest.approx(best["excess_over_noise"])
    pattern = upi.Perturbation.load(board / name / entry.lines[0].perturbation)
    assert pattern.ball.eps == pytest.approx(entry.lines[0].eps)
    shutil.copytree(board / name, board / "better")
    plain = json.loads((board / "better" / "entry.json").read_text())
    plain["lines"][0]["change"]["mean"] = plain["lines"][0]["noise"]
    (board / "better" / "entry.json").write_text(json.dumps(plain))
    lines = [line for line in table_of(board).splitlines() if line.startswith("| small-cnn")]
    assert ["(better/README.md)" in line for line in lines] == [True, False]
    plain["lines"][0]["prediction_changed"] = 7
    (board / "better" / "entry.json").write_text(json.dumps(plain))
    with pytest.raises(RunFolderError, match=r"better.*prediction_changed"):
        table_of(board)


def test_the_kept_table_is_that_of_the_kept_entries() -> None:
    board = Path(__file__).parents[2] / "results" / "leaderboard"
    assert (board / "README.md").read_text() == table_of(board)
    for name, entry in entries(board).items():
        for line in entry.lines:
            assert upi.Perturbation.load(board / name / line.perturbation).ball.eps == pytest.approx(line.eps)


def test_places_of_this_machine_stay_out_of_what_is_published() -> None:
    given = [
        "upi",
        "audit",
        "--data-dir",
        "/home/me",
        "--quick",
        "--data-dir=/home/me",
        "--publish",
        "/home/me",
    ]
    assert shareable(given) == ["upi", "audit", "--quick"]


def test_a_hardened_network_keeps_the_split_and_says_its_defence(place: Path) -> None:
    out = place / "hard"
    said = run(
        "harden", "--model", place / "train", *SLICE, "--defence", "softplus", "--epochs", "1", "--out", out
    )
    assert "before" in said
    config = json.loads((out / "config.json").read_text())
    assert config["model"]["defence"]["name"] == "softplus"
    assert config["data"]["splits"]["train"] == 500
    other = [*SLICE, "--split-seed", "3"]
    said = run("harden", "--model", place / "train", *other, "--out", place / "hard2", code=2)
    assert "another split (500 images, seed 0)" in said
    said = run("harden", "--model", place / "train", *SLICE, "--defence", "hope", "--out", out, code=2)
    assert "unknown defence" in said


def test_a_network_from_code_is_hardened_and_audited_with_its_weights(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plainly.py").write_text(
        "import torch\n"
        "import torch.nn.functional as F\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        torch.manual_seed(0)\n"
        "        self.conv, self.linear = nn.Conv2d(1, 8, 5, stride=3), nn.Linear(512, 10)\n"
        "    def forward(self, x):\n"
        "        return self.linear(F.relu(self.conv(x)).flatten(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    options = [*SLICE, "--mean", "0.2", "--std", "0.4", "--defence", "softplus", "--learning-rate", "0.005"]
    said = run("harden", "--model", "plainly:Net", *options, "--out", "hard")
    assert "--model plainly:Net --weights hard/hardened.safetensors" in said
    assert {path.name for path in (tmp_path / "hard").iterdir()} == {"config.json", "hardened.safetensors"}
    assert "which a file may not start" in run("audit", "--model", "hard", "--out", "audit", code=2)
    named = 'plainly:Net"\nweights = "hard/hardened.safetensors"\n#"'
    (tmp_path / "audit.toml").write_text(TOML.format(model=named))
    run("audit", "--config", "audit.toml", "--eps", "1", "--out", "audit", code=1)
    found = metrics(tmp_path / "audit")
    assert (
        found["model"]["fingerprint"]
        == json.loads(Path("hard/config.json").read_text())["model"]["fingerprint"]
    )
    assert found["model"]["test_accuracy"] > 0.5
    data = json.loads(Path("audit/config.json").read_text())["data"]
    assert data["splits"]["train"] == 500  # images that it was hardened on are kept out


def test_an_audit_that_ends_inside_a_cell_keeps_the_fits_that_were_done(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("upi.audit.cells.tabulate", killed)
        run("audit", "--config", place / "audit.toml", "--out", place / "inside", code=130)
    states = list((place / "inside" / "cells").glob("*/fits/*.safetensors"))
    assert [path.name for path in states] == ["upi-grad-0.safetensors"]
    with monkeypatch.context() as patch:

        def not_again(*_: Any) -> Any:
            raise AssertionError("a fit of a cell was done again")

        patch.setattr("upi.experiments.cells.fit", not_again)
        run("audit", "--config", place / "audit.toml", "--out", place / "inside", code=1)
    assert metrics(place / "inside")["tables"] == metrics(place / "one")["tables"]
    assert not list((place / "inside" / "cells").glob("*/states"))
