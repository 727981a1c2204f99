"""Places that cannot be written: numbers come before pictures, and what was finished stays readable."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_command_line import SLICE, run
from upi.results.folder import RunFolder

pytestmark = pytest.mark.slow
UPI = str(Path(sys.executable).parent / "upi")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPI_CACHE", str(folder / "cache"))
        run("train", *SLICE, "--epochs", "1", "--out", folder / "net")
        run(
            "fit",
            "--model",
            folder / "net",
            *SLICE,
            "--steps",
            "3",
            "--method",
            "upi-grad",
            "--out",
            folder / "fit",
        )
    return folder


def limited(command: list[str], size: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command whose files may not be larger than ``size`` bytes: the disk is full for the larger ones."""
    given: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    return subprocess.run(
        command,
        env=given,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


def test_a_disk_that_is_full_when_the_page_is_drawn_costs_the_page_alone(fitted: Path) -> None:
    out = fitted / "evaluated"
    given = [
        "--model",
        str(fitted / "net"),
        *SLICE,
        "--per-image-steps",
        "2",
        "--perturbation",
        str(fitted / "fit"),
    ]
    ended = limited([UPI, "evaluate", *given, "--out", str(out)], 150_000)
    assert ended.returncode == 2, ended.stderr
    assert "cannot write" in ended.stderr
    assert f"the results are in {out}" in ended.stderr
    assert "Traceback" not in ended.stderr
    kept = RunFolder(out).metrics().plain()["tables"][0]
    assert {row["name"] for row in kept["rows"]} >= {"upi-grad", "random", "per-image"}
    run("report", out)  # the page from what is there
    assert (out / "report.html").stat().st_size > 150_000


def test_a_disk_that_is_full_from_the_start_leaves_nothing(fitted: Path) -> None:
    out = fitted / "never"
    given = ["--model", str(fitted / "net"), *SLICE, "--steps", "3", "--method", "upi-grad"]
    ended = limited([UPI, "fit", *given, "--out", str(out)], 100)
    assert ended.returncode == 2, ended.stderr
    assert "cannot" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not out.exists()


def test_a_cache_that_cannot_be_written_is_said(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = limited(
        [UPI, "train", *SLICE, "--epochs", "1", "--out", str(tmp_path / "net")],
        10**9,
        UPI_CACHE=str(tmp_path / "file"),
    )
    assert ended.returncode == 0, ended.stderr  # a cache is a convenience
    assert f"nothing can be kept in the cache {tmp_path / 'file'}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "net" / "model.safetensors").exists()
