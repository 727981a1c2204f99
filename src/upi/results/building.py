"""A run while it is built: beside its final place, moved there when its numbers are complete.

An old run is replaced only by a whole new one. A run that was cut short leaves what it had finished in a
hidden folder beside, ``.NAME.partial``, from which the same command goes on; one that had finished nothing
leaves nothing. Two runs at once on one place are refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upi.core.distributed import from_lead, leads
from upi.core.errors import ArtifactError, RunFolderError
from upi.core.keeping import difference
from upi.core.locking import locked
from upi.core.storage import write_atomic
from upi.results.folder import RunFolder
from upi.results.place import check_free, free_place

#: What a run is asked for, and the folder of states, while it is built.
JOB, STATES = "job.json", "states"


class NewRun(RunFolder):
    """A run folder that is not in its final place yet; ``path`` says where it is now."""

    def __init__(self, stage: Path, out: Path, force: bool) -> None:
        super().__init__(stage)
        self.out, self.force, self.complete = out, force, False

    def state(self, name: str) -> Path:
        """Where a job may keep its state while the run is built."""
        return self.path / STATES / name

    def publish(self) -> None:
        """Move the run to its final place; what is written afterwards is written there.

        Raises:
            RunFolderError: Something else has appeared there, or it cannot be moved.
        """
        if self.path == self.out:
            return
        self.complete = True
        from_lead(self._move)
        object.__setattr__(self, "path", self.out)

    def _move(self) -> None:
        check_free(self.out, self.force)
        try:
            shutil.rmtree(self.path / STATES, ignore_errors=True)
            (self.path / JOB).unlink(missing_ok=True)
            if self.out.exists():
                shutil.rmtree(self.out)
            self.path.replace(self.out)
        except OSError as error:
            raise RunFolderError(f"cannot move the finished run to {self.out}: {error}") from error


@contextmanager
def new_run(
    out: str | Path, *, force: bool = False, job: Mapping[str, Any] | None = None, resumes: bool = False
) -> Iterator[NewRun]:
    """A fresh run folder that appears at ``out`` when it is published: at the end of the block at the latest.

    Args:
        out: Where the folder will be.
        force: Replace an existing run folder; any other folder is never replaced.
        job: What the run is asked for, as plain JSON values.
        resumes: It goes on where the same job was cut short; False begins anew each time.

    Raises:
        RunFolderError: ``out`` exists, another run is at work there, its parent cannot be written, or a run
            that was cut short there was asked for something else.
    """
    target = out
    out = from_lead(lambda: free_place(target, force=force))
    with locked(out):
        stage = out.parent / f".{out.name[:60]}.partial"
        from_lead(lambda: _opened(out, stage, job or {}, force=force, resumes=resumes))
        run = NewRun(stage, out, force)
        try:
            yield run
            run.publish()
        except BaseException as error:
            if run.path == out:
                error.add_note(f"the results are in {out}")
            elif run.complete:
                error.add_note(f"the results are in {stage}")
            elif not leads():
                pass
            elif resumes and _has_states(stage):
                error.add_note(
                    f"if that file is what an earlier run has kept, take {stage} away to begin anew"
                    if isinstance(error, ArtifactError)
                    else f"what was finished is kept in {stage}: the same command goes on from there"
                )
            else:
                shutil.rmtree(stage, ignore_errors=True)
            raise


def _opened(out: Path, stage: Path, job: Mapping[str, Any], *, force: bool, resumes: bool) -> None:
    """A free place, and the folder beside it."""
    check_free(out, force)
    _open_stage(stage, job, force, resumes)


def _open_stage(stage: Path, job: Mapping[str, Any], force: bool, resumes: bool) -> None:
    """The folder beside: that of the same job, cut short, or a new one."""
    asked = json.dumps(job, sort_keys=True)
    try:
        before = (stage / JOB).read_text() if (stage / JOB).is_file() else None
        if before is not None and _has_states(stage):
            if before == asked and resumes:
                return
            if before != asked and not force:
                raise RunFolderError(
                    f"a run that was cut short is kept in {stage}, with other settings: "
                    f"{difference(before, asked)}; repeat it as it was, force a new one, or choose another "
                    "place",
                    options=("force", "out"),
                )
        if stage.exists():
            shutil.rmtree(stage)
        stage.mkdir(parents=True)
        write_atomic(stage / JOB, asked)
    except OSError as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"cannot create a run folder in {stage.parent}: {error.strerror}") from error


def _has_states(stage: Path) -> bool:
    """Whether it holds work that a job would go on from."""
    return any(path.is_file() for path in (stage / STATES).rglob("*"))
