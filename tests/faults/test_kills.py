"""SIGKILL at random instants: a fit goes on each time and ends at the bytes of one that was left alone.

``UPI_KILLS`` says how many; ``make faults`` asks for a hundred.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("UPI_KILLS", "4"))
STEPS = 300 * KILLS
ROOT = Path(__file__).parents[2]


def start(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.job", folder, str(STEPS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def done(folder: Path) -> int:
    """Steps that the kept state holds; reading it is the test that it is whole."""
    if not (folder / "state").exists():
        return 0
    with safe_open(folder / "state", framework="pt") as file:
        return file.metadata()["facts"].count(",") + 1


def test_a_fit_that_is_killed_again_and_again_ends_at_the_same_bytes(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    _, errors = start(alone).communicate()
    assert (alone / "pattern").exists(), errors
    rng, progress = random.Random(0), [0]
    for _ in range(KILLS):
        process = start(killed)
        time.sleep(rng.uniform(0.0, 1.0))
        process.kill()
        process.communicate()
        progress.append(done(killed))
        if (killed / "pattern").exists():
            break
    assert progress == sorted(progress)  # nothing was lost
    assert progress[-1] > 0 or (killed / "pattern").exists()
    if not (killed / "pattern").exists():
        _, errors = start(killed).communicate()
        assert (killed / "pattern").exists(), errors
    assert (killed / "pattern").read_bytes() == (alone / "pattern").read_bytes()
    leftover = {path.name for path in killed.iterdir() if not path.name.startswith(".")}
    assert leftover == {"pattern"}
