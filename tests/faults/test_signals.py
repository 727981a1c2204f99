"""``upi fit`` under signals, beside itself, and asked for something else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.cli.test_command_line import SLICE, run

pytestmark = pytest.mark.slow
UPI = str(Path(sys.executable).parent / "upi")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPI_CACHE", str(folder / "cache"))
        run("train", *SLICE, "--epochs", "1", "--out", folder / "net")
        yield folder / "net"


def words(net: Path, out: Path, *more: str) -> list[str]:
    method = ["--method", "upi-grad", "--steps", "100000"]
    return [UPI, "fit", "--model", str(net), *SLICE, *method, "--out", str(out), *more]


def fitting(command: list[str]) -> subprocess.Popen[str]:
    """The command, once it fits."""
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "upi-grad":
            return process
    raise AssertionError(process.communicate()[1])


def history(state: Path) -> list[float]:
    with safe_open(state, framework="pt") as file:
        found: list[float] = json.loads(file.metadata()["facts"])["history"]
    return found


def until(state: Path, steps: int) -> list[float]:
    """Ask for the state until it holds so many steps."""
    while True:
        if state.exists() and len(found := history(state)) >= steps:
            return found
        time.sleep(0.05)


def test_signals_a_second_run_and_other_settings(trained: Path, tmp_path: Path) -> None:
    out, state = tmp_path / "run", tmp_path / ".run.partial" / "states" / "upi-grad.state"
    process = fitting(words(trained, out))
    process.send_signal(signal.SIGUSR1)  # a batch scheduler warns: the state is written, the fit goes on
    first = until(state, 1)
    assert process.poll() is None

    second = subprocess.run(words(trained, out), capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"another run is at work on {out} (process {process.pid} on" in second.stderr
    assert process.poll() is None

    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143, errors
    assert "the same command goes on from there" in errors
    kept = history(state)
    assert kept[: len(first)] == first
    assert len(kept) > len(first)
    assert not out.exists()

    other = subprocess.run(words(trained, out, "--seed", "3"), capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert "with other settings: options.seed was 0, is 3" in other.stderr

    process = fitting(words(trained, out))
    process.send_signal(signal.SIGUSR1)
    until(state, len(kept) + 1)  # it goes on from there
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    again = history(state)
    assert again[: len(kept)] == kept
    assert len(again) > len(kept)
