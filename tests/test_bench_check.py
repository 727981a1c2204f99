"""The guard of speed: it names what is slower, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from benchmarks import check

pytestmark = pytest.mark.slow


def test_what_is_slower_by_more_than_a_tenth_is_named() -> None:
    found = {"a: step": 2.3, "b: step": 2.1, "c: new": 9.0, "d: quicker": 1.0}
    kept = {"a: step": 2.0, "b: step": 2.0, "d: quicker": 2.0, "e: gone": 1.0}
    assert check.slower(found, kept) == ["a: step: 2.30 passes, kept 2.00 (+15%)"]


def test_every_kept_ratio_is_measured() -> None:
    ratios = check.ratios("vgg16", 0.125, rounds=1, batch=2)
    kept = json.loads(check.KEPT.read_text())["ratios"]
    parts = {name.split(": ")[1] for name in ratios}
    assert {name.split(": ")[1] for name in kept} == parts
    assert {name.split(": ")[0] for name in kept} == {f"{arch} ×{width:g}" for arch, width in check.NETWORKS}
    assert all(ratio > 0 for ratio in ratios.values())


def test_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "guard.json").write_text(json.dumps({"ratios": {"x ×1: step": 1.0}}))
    monkeypatch.setattr(check, "KEPT", tmp_path / "guard.json")
    monkeypatch.setattr(check, "NETWORKS", (("x", 1.0),))
    monkeypatch.setattr(sys, "argv", ["check"])
    for ratio, code in ((1.05, 0), (1.2, 1)):
        monkeypatch.setattr(check, "ratios", lambda *_, ratio=ratio: {"x ×1: step": ratio})
        with pytest.raises(SystemExit) as ended:
            check.main()
        assert ended.value.code == code
    assert "slower: x ×1: step: 1.20 passes, kept 1.00 (+20%)" in capsys.readouterr().out
