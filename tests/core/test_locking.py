"""One run at a time on a folder, and no lock outlives its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from upi.core.errors import RunFolderError
from upi.core.locking import lock_of, locked

HOLD = """
import sys, time
from pathlib import Path
from upi.core.locking import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path):  # type: ignore[no-untyped-def]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_and_told_who_holds_it(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with (
        pytest.raises(RunFolderError, match=f"another run is at work on .*run \\(process {holder.pid} on"),
        locked(tmp_path / "run"),
    ):
        pytest.fail("the block must not run")
    assert lock_of(tmp_path / "run").exists()


def test_a_lock_of_a_dead_process_does_not_block(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert lock_of(tmp_path / "run").exists()
    with locked(tmp_path / "run"):
        assert f"process {os.getpid()}" in lock_of(tmp_path / "run").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    with locked(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_threads_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "run"),
        pytest.raises(RunFolderError, match="another run"),
        locked(tmp_path / "run"),
    ):
        pytest.fail("the block must not run")
