"""The benchmarks run, each at next to no size, and their tables can be made. Nothing here is timed."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
#: One case of each benchmark, and every method of those that compare.
CASES = """
    (test_step and vgg16-0.25-16) or (compiled_step and vgg16) or (test_maps and (-1- or -5-))
    or (rows_and_solver and small) or (test_solvers and 0.5) or test_images or (image_size and 28)
    or (network_size and 0.125) or (test_strength and small) or (test_job and small)
    or (test_evaluation and vgg16) or test_ladder or (gpu_step and vgg16 and float32 and contiguous)
"""


def test_every_benchmark_runs_and_fills_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    file = tmp_path / "cpu" / "all.json"
    file.parent.mkdir()
    options = ["-o", "python_files=bench_*.py", "-o", "filterwarnings=default", "-p", "no:cacheprovider"]
    options += ["--smoke", "-q", f"--benchmark-json={file}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", *options, "-k", " ".join(CASES.split())],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    found = json.loads(file.read_text())
    assert set(found["machine_info"]) == {"cpu", "device", "threads", "torch", "python"}  # no host's name
    facts = [entry["extra_info"] for entry in found["benchmarks"]]
    assert {f["table"] for f in facts} == {
        *("step", "maps", "pca job", "solvers", "growth", "strength", "job", "evaluation", "gpu", "ablation")
    }
    # every way of taking a step gives the same gradient
    errors = {f["method"]: f["error"] for f in facts if f["table"] in ("step", "gpu") and "error" in f}
    assert max(f["error"] for f in facts if f["table"] == "ablation" and "error" in f) < 1e-3
    assert errors.pop("differences of the gradient") < 0.2
    assert len(errors) >= 6
    assert max(errors.values()) < 1e-3
    # rows of G take one pass, whatever the solver
    assert {f["passes"] for f in facts if f["table"] == "pca job"} == {1.0}
    monkeypatch.syspath_prepend(ROOT)
    tables = importlib.import_module("benchmarks.tables")
    tables.main(tmp_path, tmp_path)
    text = (tmp_path / "benchmarks.md").read_text()
    assert "`make bench DEVICE=cuda` fills this table" in text
    assert "| double backward |" in text
    assert "nan" not in text
    assert "| upi, compiled with CUDA graphs |" in tables.gpu(tmp_path / "cpu")
    assert (tmp_path / "images" / "growth.png").stat().st_size > 10_000
