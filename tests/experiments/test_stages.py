"""Stages: done work is kept, failures are written down and tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from upi.core.types import Progress
from upi.experiments.stages import StageStore


def announce(name: str) -> Progress:
    return lambda done, total: None


def counting(result: dict[str, Any]) -> tuple[Callable[[Progress], dict[str, Any]], list[int]]:
    calls: list[int] = []

    def make(progress: Progress) -> dict[str, Any]:
        calls.append(1)
        return result

    return make, calls


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    make, calls = counting({"value": 3})
    first = StageStore(tmp_path, announce).run("a/b", {"x": 1}, make)
    again = StageStore(tmp_path, announce).run("a/b", {"x": 1}, make)
    assert len(calls) == 1
    assert first.result == again.result == {"value": 3}
    assert not first.reused
    assert again.reused


def test_other_inputs_or_lost_files_run_it_again(tmp_path: Path) -> None:
    make, calls = counting({"files": ["data.bin"]})
    (tmp_path / "data.bin").write_text("x")
    stages = StageStore(tmp_path, announce)
    stages.run("a", {"x": 1}, make)
    stages.run("a", {"x": 2}, make)
    assert len(calls) == 2
    (tmp_path / "data.bin").unlink()
    stages.run("a", {"x": 2}, make)
    assert len(calls) == 3


def test_a_damaged_record_runs_it_again(tmp_path: Path) -> None:
    make, calls = counting({"value": 3})
    StageStore(tmp_path, announce).run("a", {}, make)
    (tmp_path / "stages" / "a.json").write_text("{")
    StageStore(tmp_path, announce).run("a", {}, make)
    assert len(calls) == 2


def test_a_failure_is_written_down_and_tried_again(tmp_path: Path) -> None:
    def fail(progress: Progress) -> dict[str, Any]:
        raise RuntimeError("out of luck")

    stages = StageStore(tmp_path, announce)
    outcome = stages.run("a", {}, fail)
    assert outcome.error == "RuntimeError: out of luck"
    assert "fail" in json.loads((tmp_path / "stages" / "a.json").read_text())["trace"]
    assert stages.failures() == [outcome]
    make, calls = counting({"value": 1})
    assert StageStore(tmp_path, announce).run("a", {}, make).result == {"value": 1}
    assert calls == [1]


def test_ctrl_c_is_no_failure(tmp_path: Path) -> None:
    def stop(progress: Progress) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StageStore(tmp_path, announce).run("a", {}, stop)
    assert not list(tmp_path.rglob("*.json"))


def test_a_result_that_json_cannot_hold_is_a_failure_of_its_stage_alone(tmp_path: Path) -> None:
    store = StageStore(tmp_path, announce)
    bad = store.run("bad", {}, lambda progress: {"value": float("nan")})
    assert bad.result is None
    assert "not JSON compliant" in str(bad.error)
    assert store.run("good", {}, lambda progress: {"value": 1.0}).result == {"value": 1.0}
