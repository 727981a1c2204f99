"""A run while it is built: numbers first, nothing finished is lost, only the same command goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from upi.core.errors import ArtifactError, RunFolderError
from upi.results.building import STATES, new_run

JOB = {"command": "fit", "options": {"seed": 0}}


def cut_short(out: Path) -> None:
    """A run that is interrupted half way."""
    with new_run(out, job=JOB, resumes=True) as run:
        run.state("one").parent.mkdir()
        run.state("one").write_text("half way")
        raise KeyboardInterrupt


def fails_after_its_numbers(out: Path) -> None:
    with new_run(out) as run:
        run.write_json("config.json", {"command": "evaluate"})
        run.publish()
        raise OSError("disk full")


def finds_its_place_taken(out: Path) -> None:
    with new_run(out) as run:
        run.write_json("config.json", {"command": "evaluate"})
        out.mkdir()
        (out / "thesis.txt").write_text("three years of work")


def test_what_was_finished_is_kept_and_the_same_job_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) as caught:
        cut_short(out)
    assert "the same command goes on" in caught.value.__notes__[0]
    assert not out.exists()
    with new_run(out, job=JOB, resumes=True) as run:
        assert run.state("one").read_text() == "half way"
        run.write_json("config.json", {"command": "fit"})
    assert {path.name for path in out.iterdir()} == {"config.json"}
    assert list(tmp_path.iterdir()) == [out]


def test_another_job_is_refused_with_the_difference_and_force_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        cut_short(out)
    other = {**JOB, "options": {"seed": 1}}
    with (
        pytest.raises(RunFolderError, match=r"options\.seed was 0, is 1"),
        new_run(out, job=other, resumes=True),
    ):
        pytest.fail("the block must not run")
    with new_run(out, job=other, force=True, resumes=True) as run:
        assert not (run.path / STATES).exists()


def test_a_state_that_cannot_be_used_is_said_to_be_in_the_way(tmp_path: Path) -> None:
    """Such as that of another network in the same place: the same command would meet it again."""
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        cut_short(out)
    with pytest.raises(ArtifactError) as caught, new_run(out, job=JOB, resumes=True):
        raise ArtifactError("kept by another job: model was a, is b")
    (note,) = caught.value.__notes__
    assert "take" in note
    assert str(tmp_path / ".run.partial") in note
    assert (tmp_path / ".run.partial" / STATES).exists()


def test_nothing_finished_leaves_nothing(tmp_path: Path) -> None:
    for job, resumes in ((None, False), (JOB, True)):
        with pytest.raises(KeyboardInterrupt), new_run(tmp_path / "run", job=job, resumes=resumes):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []


def test_published_numbers_stay_whatever_comes_after(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(OSError, match="disk full") as caught:
        fails_after_its_numbers(out)
    assert (out / "config.json").exists()
    assert caught.value.__notes__ == [f"the results are in {out}"]


def test_a_place_that_was_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunFolderError, match="never replaced") as caught:
        finds_its_place_taken(out)
    assert (out / "thesis.txt").exists()
    (note,) = caught.value.__notes__
    assert (Path(note.removeprefix("the results are in ")) / "config.json").exists()


def test_a_command_that_begins_anew_does_not_sweep_away_what_another_has_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        cut_short(out)
    with (
        pytest.raises(RunFolderError, match=r"command was \"fit\", is \"evaluate\""),
        new_run(out, job={**JOB, "command": "evaluate"}),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / ".run.partial" / STATES / "one").read_text() == "half way"


def test_what_a_dead_process_left_without_a_state_is_in_nobody_s_way(tmp_path: Path) -> None:
    stage = tmp_path / ".run.partial"
    (stage / "perturbations").mkdir(parents=True)
    (stage / "job.json").write_text('{"command": "evaluate"}')
    (stage / "perturbations" / "half").write_text("")
    with new_run(tmp_path / "run", job=JOB) as run:
        assert not (run.path / "perturbations").exists()
