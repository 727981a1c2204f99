"""The command line end to end on a small slice, and its answers to bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import upi
from upi.attacks import registry
from upi.cli.app import app
from upi.cli.registry import COMMANDS
from upi.core.errors import RunFolderError
from upi.dissimilarity import DISSIMILARITIES
from upi.models.classifiers import load_trained
from upi.results.building import new_run
from upi.results.folder import RunFolder
from upi.saliency import MAPS

pytestmark = pytest.mark.slow

SLICE = ["--n-train", "500", "--n-fit", "64", "--n-select", "32", "--n-test", "60"]
DEMO = ["demo", *SLICE, "--epochs", "3", "--eps", "1.3"]
UPI = str(Path(sys.executable).parent / "upi")


def run(*arguments: str | Path, code: int = 0) -> str:
    """Run ``upi`` in this process; returns its output, stderr included."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return re.sub(r"\s+", " ", re.sub(r"[│╭╮╰╯─]", " ", result.output))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a demo run; the classifier's cache is in it too."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPI_CACHE", str(folder / "cache"))
        run(*DEMO, "--out", folder / "demo")
        run("train", *SLICE, "--epochs", "3", "--out", folder / "train")
        yield folder


@pytest.fixture(scope="module")
def fitted(workplace: Path) -> Path:
    """A folder with upi-pca and upi-grad of a quick fit."""
    run("fit", "--model", workplace / "train", *SLICE, "--steps", "3", "--out", workplace / "fitted")
    return workplace / "fitted"


@pytest.fixture(scope="module")
def evaluated(workplace: Path, fitted: Path) -> Path:
    """The run folder of an evaluation of both attacks."""
    shared: list[str | Path] = ["evaluate", "--model", workplace / "train", *SLICE, "--per-image-steps", "2"]
    run(*shared, "--perturbation", fitted, "--out", workplace / "evaluated")
    return workplace / "evaluated"


def test_the_demo_is_an_audit_that_ends_with_zero_and_can_be_repeated_by_the_audit_command(
    workplace: Path, tmp_path: Path
) -> None:
    demo = workplace / "demo"
    names = {path.name for path in demo.iterdir()}
    assert names == {
        "AUDIT.md",
        "cells",
        "classifier",
        "config.json",
        "figures",
        "metrics.json",
        "per_sample.parquet",
        "perturbations",
        "report.html",
        "stages",
        "verdict.json",
    }
    metrics = json.loads((demo / "metrics.json").read_text())
    assert [table["saliency"] for table in metrics["tables"]] == ["gradient", "integrated_gradients"]
    trained = load_trained(demo / "classifier" / "model.safetensors").about
    assert trained["n_test"] == 5000 - 500 - 64 - 32
    assert metrics["model"]["test_accuracy"] == trained["test_accuracy"]
    for table in metrics["tables"]:
        assert set(table["perturbations"]) == {"upi-pca", "upi-grad"}
        for stem in table["perturbations"].values():
            pattern = upi.Perturbation.load(demo / "perturbations" / f"{stem}.safetensors")
            assert pattern.ball.eps == table["eps"] == 1.3
    for figure in (demo / "figures").iterdir():
        with Image.open(figure) as picture:
            assert picture.size[0] > 300
    code = json.loads((demo / "verdict.json").read_text())["exit_code"]
    run("audit", "--config", demo / "config.json", "--out", tmp_path / "same", code=code)
    assert json.loads((tmp_path / "same" / "metrics.json").read_text())["tables"] == metrics["tables"]


def test_metrics_follow_the_contract(workplace: Path, evaluated: Path) -> None:
    for place in (workplace / "demo", evaluated):
        metrics = json.loads((place / "metrics.json").read_text())
        assert metrics["schema"] == 2
        assert {"dataset", "model", "tables", "flags", "seconds"} <= set(metrics)
        for table in metrics["tables"]:
            rows = {row["name"] for row in table["rows"]}
            assert rows >= {"random", "upi-pca", "upi-grad", "per-image-one-step", "per-image"}


def test_per_sample_figures_average_to_the_table(workplace: Path, evaluated: Path) -> None:
    for place in (workplace / "demo", evaluated):
        frame = pd.read_parquet(place / "per_sample.parquet")
        for table in json.loads((place / "metrics.json").read_text())["tables"]:
            for row in table["rows"]:
                mine = frame[(frame["table"] == table["key"]) & (frame["row"] == row["name"])]
                assert len(mine) == table["n_test"]
                assert mine["dissimilarity"].mean() == pytest.approx(row["dissimilarity"]["mean"])


def test_the_report_is_one_file_that_opens_offline_and_says_what_matters(evaluated: Path) -> None:
    page = (evaluated / "report.html").read_text()
    assert not re.search(r"<(link|script|iframe)|href\s*=", page)
    widths = [int(width) for width in re.findall(r'width="(\d+)" alt=', page)]
    assert len(widths) == page.count("<img ")
    assert all(300 <= width <= 960 for width in widths)
    assert all(source.startswith("data:image/png") for source in re.findall(r'src="([^"]{0,30})', page))
    assert "url(" not in page
    for words in (
        "One fixed pattern of ℓ2 size 2",
        "Threat model",
        "predictions stay",
        "Repeat it",
        "ICASSP 2023",
    ):
        assert words in page


def test_the_second_demo_uses_the_cached_classifier_and_repeats_from_its_configuration(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPI_CACHE", str(workplace / "cache"))
    (kept,) = (workplace / "cache" / "classifiers").glob("*.safetensors")
    before = kept.stat().st_mtime_ns
    run("demo", "--config", workplace / "demo" / "config.json", "--out", workplace / "again")
    assert kept.stat().st_mtime_ns == before
    first, second = RunFolder(workplace / "demo"), RunFolder(workplace / "again")
    assert first.config().options == second.config().options
    assert first.metrics().tables == second.metrics().tables
    for path in (workplace / "demo" / "perturbations").iterdir():
        assert path.read_bytes() == (workplace / "again" / "perturbations" / path.name).read_bytes()


def test_train_fit_evaluate_report_work_together(workplace: Path, tmp_path: Path) -> None:
    shared: list[str | Path] = ["--model", workplace / "train", *SLICE]
    run("fit", *shared, "--norm", "linf", "--eps", "16/255", "--steps", "5", "--out", tmp_path / "fit")
    perturbations = tmp_path / "fit" / "perturbations"
    assert {path.name for path in perturbations.iterdir()} == {"upi-grad.safetensors", "upi-pca.safetensors"}
    out = run("evaluate", *shared, "--perturbation", tmp_path / "fit", "--out", tmp_path / "evaluate")
    assert "linf eps = 0.0627451" in out
    table = RunFolder(tmp_path / "evaluate").metrics().plain()["tables"][0]
    assert (table["saliency"], table["norm"], table["eps"]) == ("gradient", "linf", pytest.approx(16 / 255))
    page = tmp_path / "evaluate" / "report.html"
    before = page.read_text()
    page.unlink()
    run("report", tmp_path / "evaluate")
    assert page.read_text() == before


def test_a_model_and_images_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))\n"
    )
    rng = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    sizes = ["--n-train", "0", "--n-fit", "8", "--n-select", "4", "--n-test", "12"]
    shared = ["--model", "mine:net", "--data", "images", *sizes, "--mean", "0.5", "--std", "0.25"]
    run("fit", *shared, "--method", "upi-pca", "--saliency", "smoothgrad", "--eps", "1", "--out", "fit")
    assert upi.Perturbation.load("fit/perturbations/upi-pca.safetensors").delta.shape == (3, 12, 12)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_command_and_each_of_its_options(name: str) -> None:
    assert name in run("--help")
    out = run(name, "--help")
    # Arguments, and options of another name.
    apart = ("context", "run", "runs", "dataset", "kind", "compile_step", "print_schema", "file", "resume")
    options = [key for key in signature(COMMANDS[name]).parameters if key not in apart]
    shown = [option for option in options if f"--{option.replace('_', '-')}" in out]
    assert shown == options


def test_help_teaches_options() -> None:
    assert "8/255 is accepted" in run("fit", "--help")
    assert all(name in run("fit", "--help") for name in (*MAPS, *DISSIMILARITIES, *registry.fitted()))


def test_a_configuration_of_version_0_1_is_still_taken(workplace: Path, tmp_path: Path) -> None:
    """There --weights was one path and no list."""
    options = {"model": str(workplace / "train"), "weights": "nowhere.safetensors", "data": "mnist-sample"}
    (tmp_path / "config.json").write_text(json.dumps({"command": "fit", "options": options}))
    run("fit", "--config", tmp_path / "config.json", *SLICE, "--steps", "1", "--out", tmp_path / "run",
        "--method", "upi-grad")  # fmt: skip
    assert RunFolder(tmp_path / "run").config().options["weights"] == ["nowhere.safetensors"]


def test_an_existing_run_is_kept_unless_forced(workplace: Path) -> None:
    before = (workplace / "train" / "config.json").read_bytes()
    out = run("train", *SLICE, "--out", workplace / "train", code=2)
    assert "exists already; force its replacement, or choose another place (--force, --out)" in out
    assert (workplace / "train" / "config.json").read_bytes() == before


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    assert "never replaced" in run("train", "--out", tmp_path, "--force", code=2)
    assert (tmp_path / "thesis.txt").exists()


def test_a_failed_run_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    with new_run(tmp_path / "run") as folder:
        folder.write_json("config.json", {"command": "1"})
    with pytest.raises(ValueError, match="JSON"), new_run(tmp_path / "run", force=True) as folder:
        folder.write_json("config.json", {"number": float("nan")})
    assert RunFolder(tmp_path / "run").config().command == "1"
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_an_unwritable_place_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunFolderError, match="cannot create a run folder"),
        new_run(tmp_path / "file" / "run"),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "imagenet-22k"], "unknown dataset 'imagenet-22k'"),
        (["train", "--arch", "gpt"], "unknown network 'gpt' (known: cifar-resnet20, cifar-resnet32"),
        (["train", "--n-train", "6000"], "has 5000"),
        (["train", "--epochs", "0"], "epochs"),
        (["train", "--epochs", "many"], "epochs"),
        (["fit", "--model", "nowhere"], "unknown model 'nowhere'"),
        (["fit", "--model", "json:dumps2"], "cannot import it"),
        (["fit"], "Missing option"),
        (["report", "nowhere"], "cannot be read"),
        (["evaluate", "--model", "m:x", "--perturbation", "nowhere.safetensors"], "cannot be read"),
    ],
)
def test_bad_input_gives_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in run(*arguments, code=2)
    assert not any(path.name.startswith(".") for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.toml", "epochs = ", "not valid TOML"),
        ("bad.json", "{", "not valid JSON"),
        ("bad.json", "[1]", "expected a table of options"),
        ("odd.toml", "epochz = 3", "unknown option epochz for 'upi train'"),
    ],
)
def test_bad_configuration_files_are_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert message in run("train", "--config", tmp_path / name, "--out", tmp_path / "out", code=2)


def test_options_on_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "options.toml").write_text("epochs = 1\nn-train = 200\nn_test = 50\nseed = 4\n")
    run("train", "--config", tmp_path / "options.toml", "--seed", "5", "--out", tmp_path / "out")
    options = RunFolder(tmp_path / "out").config().options
    assert {key: options[key] for key in ("epochs", "n_train", "n_test", "seed")} == {
        "epochs": 1,
        "n_train": 200,
        "n_test": 50,
        "seed": 5,
    }


def test_a_damaged_classifier_file_is_refused(workplace: Path, tmp_path: Path) -> None:
    shutil.copytree(workplace / "train", tmp_path / "train")
    weights = tmp_path / "train" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    out = run("fit", "--model", tmp_path / "train", "--out", tmp_path / "fit", code=2)
    assert "not a classifier file" in out


@pytest.mark.parametrize("command", ["demo", "train"])
def test_ctrl_c_exits_with_130_and_leaves_nothing(command: str, tmp_path: Path) -> None:
    environment: dict[str, Any] = {**os.environ, "UPI_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [UPI, command, "--out", str(tmp_path / "runs" / "one")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("cache/**/*.checkpoint")) + list(tmp_path.glob("cache/**/*.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.glob("runs/*")) == []
    assert list(tmp_path.glob("runs/.*.partial")) == []


def _flags(run_folder: Path) -> set[str]:
    return {flag.code for flag in RunFolder(run_folder).metrics().flags}


def test_test_images_that_may_have_been_fitted_on_are_flagged(
    workplace: Path, fitted: Path, tmp_path: Path
) -> None:
    shared: list[str | Path] = ["evaluate", "--model", workplace / "train", "--perturbation", fitted]
    quick = ["--per-image-steps", "2"]
    run(*shared, *SLICE, *quick, "--out", tmp_path / "same")
    run(*shared, *SLICE, *quick, "--split-seed", "1", "--out", tmp_path / "other")
    assert not _flags(tmp_path / "same") & {"splits-differ", "another-model", "unknown-fitting-data"}
    assert "splits-differ" in _flags(tmp_path / "other")
    assert "for this report are disjoint" in (tmp_path / "same" / "report.html").read_text()
    assert "for this report are disjoint" not in (tmp_path / "other" / "report.html").read_text()


def test_evaluate_keeps_every_perturbation_and_refuses_the_names_of_controls(
    workplace: Path, fitted: Path, tmp_path: Path
) -> None:
    for name in ("one", "two--three", "per-image"):
        shutil.copy(fitted / "perturbations" / "upi-pca.safetensors", tmp_path / f"{name}.safetensors")
    shared: list[str | Path] = ["evaluate", "--model", workplace / "train", *SLICE, "--per-image-steps", "2"]
    one, two = tmp_path / "one.safetensors", tmp_path / "two--three.safetensors"
    both = ["--perturbation", one, "--perturbation", two]
    run(*shared, *both, "--dissimilarity", "mass_center", "--out", tmp_path / "run")
    files = {path.name for path in (tmp_path / "run" / "perturbations").iterdir()}
    assert files == {"one.safetensors", "two--three.safetensors"}
    page = (tmp_path / "run" / "report.html").read_text()
    lead = page.split('class="lead">')[1].split("</p>")[0]
    assert "pixels (centre of mass)" in lead
    out = run(*shared, "--perturbation", tmp_path / "per-image.safetensors", "--out", tmp_path / "x", code=2)
    assert "names a control" in out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: m.pop("tables"), "does not follow schema 2: tables: Field required"),
        (lambda m: m["tables"].clear(), "tables: List should have at least 1 item"),
        (lambda m: m["tables"][0]["rows"][0].pop("ssim"), "tables.0.rows.0.ssim: Field required"),
        (lambda m: m.update(schema=3), "expected schema 2 or 1, got 3"),
    ],
)
def test_reports_on_damaged_results_are_refused(
    damage: Any, message: str, evaluated: Path, tmp_path: Path
) -> None:
    shutil.copytree(evaluated, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    damage(metrics)
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    assert message in run("report", tmp_path / "run", code=2)


def test_more_bad_input(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "colours.py").write_text(
        "from torch import nn\n"
        "def colour():\n    return nn.Conv2d(3, 2, 3)\n"
        "def broken():\n    raise OSError('no weights')\n"
    )
    (tmp_path / "damaged" / "cat").mkdir(parents=True)
    (tmp_path / "damaged" / "cat" / "1.png").write_bytes(b"not a picture")
    model = ["--model", str(workplace / "train")]
    for arguments, message in (
        (["fit", *model, *SLICE, "--n-train", "-1"], "greater than or equal to 0"),
        (["fit", *model, *SLICE, "--device", "toaster"], "device toaster"),
        (["fit", *model, *SLICE, "--method", "magic"], "unknown method 'magic'"),
        (
            ["fit", *model, *SLICE, "--n-select", "0"],
            "empty; give it images (--n-select)",
        ),
        (["fit", "--model", "colours:colour", *SLICE], "cannot run on images of shape (1, 28, 28)"),
        (["fit", "--model", "colours:broken", *SLICE], "calling it failed: OSError: no weights"),
        (["train", *SLICE, "--n-test", "0"], "at least one image"),
        (["train", "--data", "damaged", "--n-train", "1"], "damaged"),
        (["train", "--out", "x" * 300], "cannot use"),
    ):
        assert message in run(*arguments, code=2), arguments
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "cannot replace the current folder" in run("train", *SLICE, "--out", ".", code=2)


def test_a_bare_installation_says_what_the_command_line_needs() -> None:
    code = "import sys; sys.modules['typer'] = None; from upi.cli.main import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert (
        result.stderr.strip()
        == "upi: the command line needs typer; install it with: pip install 'upi-xai[cli]'"
    )
