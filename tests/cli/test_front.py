"""The front door says what the commands would say, without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from upi.attacks import ATTACKS
from upi.cli import front, spec
from upi.cli.app import app
from upi.cli.registry import COMMANDS
from upi.core.errors import ConfigError
from upi.datasets.registry import DATASETS
from upi.datasets.splits import load
from upi.dissimilarity import DISSIMILARITIES
from upi.models.classifiers import load_classifier
from upi.models.registry import SOURCES
from upi.saliency import MAPS

pytestmark = pytest.mark.slow
KNOWN = json.loads(front.SPEC.read_text())["commands"]


def test_what_is_written_down_is_what_the_commands_are() -> None:
    assert front.SPEC.read_text() == spec.text(), "write it again: python -m upi.cli.spec"


def both(arguments: list[str]) -> tuple[str, str, int, int]:
    runner = CliRunner(env={"COLUMNS": "120"})
    light, real = (runner.invoke(each, arguments) for each in (front.door(KNOWN), app))
    return light.output, real.output, light.exit_code, real.exit_code


@pytest.mark.parametrize("arguments", [["--help"], [], *([name, "--help"] for name in KNOWN)], ids=str)
def test_help_is_the_same(arguments: list[str]) -> None:
    light, real, code, other = both(arguments)
    assert light == real
    assert code == other
    assert len(light) > 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit"],
        ["fit", "--model", "m:a", "--stepz", "3"],
        ["fit", "--model", "m:a", "--steps", "0"],
        ["fit", "--model", "m:a", "--steps", "many"],
        ["fit", "--model", "m:a", "--batch-size", "0"],
        ["fit", "--model", "m:a", "extra"],
        ["audit", "--fits", "0"],
        ["reproduce"],
        ["transfer", "--n-fit", "-1"],
        ["fit", "--model", "m:a", "--saliency", "gradeint"],
        ["fit", "--model", "m:a", "--dissimilarity", "l2"],
        ["fit", "--model", "m:a", "--norm", "l3"],
        ["fit", "--model", "m:a", "--preset", "papers"],
        ["fit", "--model", "m:a", "--method", "upi-grad", "--method", "upi-pac"],
        ["audit", "--saliency", "gradient", "--saliency", "grad-cam"],
        ["evaluate", "--preset", "own", "--perturbation", "a", "--model", "m:b"],
        ["transfer", "--saliency", "x", "--model", "m:b", "--perturbation", "a"],
        ["harden", "--model", "m:a", "--defence", "none"],
        ["reproduce", "mnist", "--preset", "own"],
        ["fit", "--model", "nowhere"],
        ["fit", "--model", "x" * 500],
        ["audit", "--model", "cifar10-resnet23"],
        ["transfer", "--model", "m:a", "--model", "nowhere", "--perturbation", "a"],
        ["train", "--arch", "vgg61"],
        ["train", "--data", "minst"],
        ["audit", "--data", "imagenet-22k"],
        ["fti"],
        ["compare"],
    ],
    ids=str,
)
def test_refusals_are_the_same(arguments: list[str]) -> None:
    light, real, code, other = both(arguments)
    assert light == real
    assert code == other == 2


@pytest.mark.parametrize(
    "command", [name for name in KNOWN if "place" in KNOWN[name]["parameters"].get("out", {})]
)
def test_places_that_are_taken_are_refused_alike(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/file").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    needed = {"transfer": ["--model", "m:b", "--perturbation", "a"], "train": []}
    asked = [command, *needed.get(command, ["--model", "m:a"])]
    asked += ["--perturbation", "a"] if command == "evaluate" else []
    for place, said in (
        ("notes", "is not a run folder (no config.json); it is never replaced"),
        ("notes/file", "exists and is not a folder; choose another place (--out)"),
        ("run", "exists already; force its replacement, or choose another place (--force, --out)"),
        (".", "is not a run folder"),
        ("x" * 500, "as a run folder: File name too long"),
    ):
        light, real, code, other = both([*asked, "--out", place])
        assert light == real
        assert said in light
        assert code == other == 2
    for free in (["--out", "new"], ["--out", "run", "--force"]):
        front.check([*asked, *free])
    assert (tmp_path / "run/config.json").read_text() == "{}"


def test_a_name_that_is_none_is_said_with_the_nearest_or_with_those_that_are() -> None:
    for given, said in (("gradeint", "'gradeint'; did you mean 'gradient'?"), ("x", "'x' (known: ")):
        light, _, code, _ = both(["fit", "--model", "m:a", "--saliency", given])
        assert code == 2
        assert f"unknown saliency map {said}" in " ".join(light.split())


def test_what_only_the_command_can_judge_is_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "net.pt").touch()
    for word in ("timm/x", "hf/me/net", "zoo/x", "package.module:net", "run", "net.pt", "cifar10-resnet32"):
        front.check(["fit", "--model", word])
    for word in ("mnist", "run", "some/where"):
        front.check(["train", "--data", word])
    front.check(["train", "--arch", "torchvision/resnet18"])
    for source in SOURCES.values():  # a bare word that a source takes is among its names
        assert all(source.accepts(name) for name in source.names)


def test_programs_are_told_of_unknown_networks_and_datasets_too() -> None:
    with pytest.raises(ConfigError, match="no such file or folder, and of no known form"):
        load_classifier("nowhere")
    with pytest.raises(ConfigError, match="unknown dataset 'minst'"):
        load("minst")


def test_every_file_that_may_bring_a_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = front.command_files()
    for registry in (MAPS, DISSIMILARITIES, ATTACKS, COMMANDS, SOURCES, DATASETS):
        folder = Path(*registry.package.split(".")[1:])
        assert any(Path(name).parent == folder for name in known), registry.package
    monkeypatch.setattr(front, "command_files", lambda: [*known, "saliency/own.py"])
    front.check(["fit", "--model", "m:a", "--saliency", "own"])  # left to the commands, which know it


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line with PyTorch, NumPy, pandas and Matplotlib out of reach."""
    code = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'matplotlib', 'pandas'): sys.modules[name] = None\n"
        "sys.argv = ['upi', *sys.argv[1:]]\n"
        "from upi.cli.main import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["fit", "--help"], 0), (["fit", "--x"], 2)]
)
def test_nothing_heavy_is_imported(arguments: list[str], code: int) -> None:
    done = called(*arguments)
    assert done.returncode == code, done.stderr
    assert "Usage: upi" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported_for_a_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = called("train", "--out", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "exists already; force its replacement" in done.stderr


def test_what_is_understood_goes_on_to_the_commands() -> None:
    done = called("list")
    assert done.returncode == 2
    assert "the command line needs" in done.stderr


def test_a_call_with_a_file_of_options_and_new_commands_are_for_the_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front.check(["fit", "--config", "options.toml"])
    front.check(["fit", "--config=options.toml"])
    front.check(["list"])
    for unknown in ("fit", "a-command-of-your-own"):
        with pytest.raises(SystemExit):
            front.check([unknown, "--x"])
    monkeypatch.setattr(front, "command_files", lambda: ["new.py"])
    for new in ("fit", "a-command-of-your-own"):
        front.check([new, "--x"])


def test_importing_the_library_brings_nothing_and_its_names_everything(tmp_path: Path) -> None:
    code = (
        "import sys, upi\n"
        "assert 'torch' not in sys.modules\n"
        "assert set(upi.__all__) <= set(dir(upi))\n"
        "for name in [*upi.__all__, *upi._MODULES, '__version__']: getattr(upi, name)\n"
        "assert upi.errors is upi.core.errors and upi.UPIGrad.__module__ == 'upi.attacks.upi_grad'\n"
        "try: upi.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "module 'upi' has no attribute 'nothing'"
