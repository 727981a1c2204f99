"""SIGKILL at random instants over whole commands: each goes on, and ends at the files of one left alone.

``UPI_KILLS`` says how many over all commands; ``make faults`` asks for a hundred, ``make test`` for a few.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_command_line import SLICE
from tests.datasets.test_sources import write_parquet

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("UPI_KILLS", "4"))
UPI = [sys.executable, "-m", "upi"]
#: Command, what it is asked for, and the files that must be the same in the end.
COMMANDS = {
    "fit": (
        [*UPI, "fit", "--model", "{net}", *SLICE, "--steps", "40", "--out", "{out}"],
        ["perturbations/*.safetensors"],
    ),
    "audit": (
        [
            *UPI, "audit", "--quick", "--model", "{net}", "--config", "{place}/audit.toml", "--n-test", "30",
            "--out", "{out}",
        ],
        ["cells/*/*.safetensors", "per_sample.parquet", "verdict.json"],
    ),
    "evaluate": (
        [
            *UPI, "evaluate", "--model", "{net}", *SLICE, "--batch-size", "10", "--perturbation", "{fit}",
            "--out", "{out}",
        ],
        ["per_sample.parquet"],
    ),
    "train": (
        [*UPI, "train", *SLICE, "--epochs", "12", "--seed", "7", "--out", "{out}"],
        ["model.safetensors"],
    ),
    "reproduce": (
        [sys.executable, "-m", "tests.experiments.reproduce.work", "{out}"],
        ["perturbations/*.safetensors", "classifiers/*.safetensors"],
    ),
}  # fmt: skip
FEW = ("fit", "audit")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, a fit, and an audit's settings."""
    folder = tmp_path_factory.mktemp("killed")
    ended(["train", *SLICE, "--epochs", "2", "--out", folder / "net"], folder)
    steps = ["--steps", "3", "--method", "upi-grad"]
    ended(["fit", "--model", folder / "net", *SLICE, *steps, "--out", folder / "fit"], folder)
    for part, count in (("train", 80), ("test", 60)):
        write_parquet(folder / "mnist" / f"{part}.parquet", (1, 28, 28), [k % 10 for k in range(count)])
    (folder / "audit.toml").write_text("[network]\nmodel = 'x'\n[images]\nn_fit = 48\nn_select = 24\n")
    return folder


def environment(cache: Path) -> dict[str, str]:
    return {
        **os.environ,
        "UPI_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
    }


def ended(arguments: list[str | Path], cache: Path) -> None:
    command = [*UPI, *map(str, arguments)]
    subprocess.run(command, env=environment(cache), cwd=ROOT, check=True, capture_output=True)


def start(name: str, place: Path, out: Path, cache: Path) -> subprocess.Popen[str]:
    known = {"net": place / "net", "fit": place / "fit", "place": place, "out": out}
    command = [word.format(**known) for word in COMMANDS[name][0]]
    own = {"UPI_DATA": str(place)} if name == "reproduce" else {}
    return subprocess.Popen(
        command,
        env={**environment(cache), **own},
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def digests(name: str, out: Path) -> dict[str, str]:
    files = [path for pattern in COMMANDS[name][1] for path in sorted(out.glob(pattern))]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", COMMANDS if KILLS >= 20 else FEW)
def test_a_command_that_is_killed_again_and_again_ends_at_the_same_files(name: str, place: Path) -> None:
    alone, killed, cache = place / f"{name}-alone", place / f"{name}-killed", place / f"{name}-cache"
    begin = time.monotonic()
    process = start(name, place, alone, place / f"{name}-cache-alone")
    _, errors = process.communicate()
    whole, code = time.monotonic() - begin, process.returncode
    expected = digests(name, alone)
    assert expected, errors
    rng, kills = random.Random(name), 0
    while kills < max(1, KILLS // len(COMMANDS)):
        process = start(name, place, killed, cache)
        time.sleep(rng.uniform(0.2, 1.0) * whole)
        process.kill()
        _, errors = process.communicate()
        kills += process.returncode < 0
        if process.returncode >= 0:  # it ended before, now or when it was killed while it drew: begin anew
            assert process.returncode == code or "exists already" in errors, errors
            assert digests(name, killed) == expected
            shutil.rmtree(killed)
            shutil.rmtree(cache, ignore_errors=True)
    process = start(name, place, killed, cache)
    _, errors = process.communicate()
    if "exists already" not in errors:  # the last kill came when all was written
        assert process.returncode == code, errors
    assert digests(name, killed) == expected
    assert not list(place.glob(f".{name}-killed.partial*"))
