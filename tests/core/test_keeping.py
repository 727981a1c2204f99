"""State of a job on disk: the same job reads it, no other does; writing takes a small share of the time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from upi.core.errors import ArtifactError
from upi.core.keeping import Keeper, asked_by


class Clock:
    """Seconds that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def keeper(path: Path, clock: Clock | None = None, **identity: object) -> Keeper:
    return Keeper(path, {"steps": 50, "model": "m", **identity}, clock=clock or Clock())


def test_the_same_job_reads_what_was_kept(tmp_path: Path) -> None:
    first = keeper(tmp_path / "state")
    assert first.load({"x"}) is None
    first.write({"x": torch.arange(3.0)}, {"step": 7})
    tensors, facts = keeper(tmp_path / "state").load({"x"}) or ({}, {})
    assert torch.equal(tensors["x"], torch.arange(3.0))
    assert facts == {"step": 7}
    first.drop()
    assert list(tmp_path.iterdir()) == []


def test_another_job_is_refused_with_the_difference(tmp_path: Path) -> None:
    keeper(tmp_path / "state").write({"x": torch.zeros(1)}, {})
    with pytest.raises(ArtifactError, match='another job: model was "m", is "n"; steps was 50, is 60'):
        keeper(tmp_path / "state", model="n", steps=60).load({"x"})


def test_damaged_files_and_other_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    keeper(path).write({"x": torch.zeros(100)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(ArtifactError, match="truncated"):
        keeper(path).load({"x"})
    path.write_bytes(whole.replace(b'"version":"1"', b'"version":"9"'))
    with pytest.raises(ArtifactError, match="expected version '1', got '9'"):
        keeper(path).load({"x"})
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(ArtifactError, match="never unpickled"):
        keeper(path).load({"x"})


def test_writing_takes_two_percent_of_the_time_at_the_most(tmp_path: Path) -> None:
    clock, writes, spent = Clock(), 0, 0.0
    kept = keeper(tmp_path / "state", clock)
    cost = 0.3

    class Slow(dict):  # type: ignore[type-arg]
        def items(self):  # type: ignore[no-untyped-def]
            clock.now += cost
            return super().items()

    for _ in range(1000):
        clock.now += 0.1
        before = clock.now
        kept.offer(lambda: (Slow(x=torch.zeros(1)), {}))
        writes += clock.now > before
        spent += clock.now - before
    assert writes >= 5
    assert spent <= 0.02 * (clock.now - 100) + cost


def test_a_signal_asks_for_a_write_at_the_next_chance(tmp_path: Path) -> None:
    kept, flag = keeper(tmp_path / "state"), [False]
    with asked_by(flag):
        kept.offer(lambda: ({"x": torch.zeros(1)}, {}))
        assert not (tmp_path / "state").exists()
        flag[0] = True
        kept.offer(lambda: ({"x": torch.zeros(1)}, {}))
        assert (tmp_path / "state").exists()
        assert flag == [False]
