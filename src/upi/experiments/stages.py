"""Finished stages on disk: what was done is not done again, after any kind of end.

A stage is a name, what its result depends on, and a function. Its result is written as JSON,
whole or not at all; files it names are written before. A stage whose inputs changed, or whose
files are gone, runs again. A failure is written down as the stage's outcome, so that one
network's trouble does not lose the others' results; it is tried again the next time.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upi.core.distributed import all_failed, from_lead, shard_size
from upi.core.errors import RunFolderError
from upi.core.storage import write_atomic
from upi.core.types import Progress
from upi.core.version import versions
from upi.results.folder import parse_json

Result = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a stage gave: a result or an error."""

    name: str
    result: Result | None
    error: str | None
    seconds: float
    reused: bool = False
    trace: str | None = None  # where the error came from


def _key(inputs: Mapping[str, Any]) -> str:
    cut = {} if shard_size() is None else {"shard_size": shard_size()}
    text = json.dumps({"versions": versions(), **cut, **inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class StageStore:
    """Runs stages in a folder, or takes their results from there.

    Attributes:
        folder: Run folder; stages live in ``stages/``, their files anywhere below.
        announce: Called with a stage's name; returns its progress callback.
        outcomes: Every stage of this run, in order.
    """

    folder: Path
    announce: Callable[[str], Progress]
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, name: str, inputs: Mapping[str, Any], make: Callable[[Progress], Result]) -> Outcome:
        """The outcome of a stage, from its file where it is there.

        Args:
            name: Unique; slashes group stages.
            inputs: What the result depends on, as JSON values.
            make: Given a progress callback, returns a JSON object; ``files`` in it are paths
                below the folder that belong to the result.
        """
        outcome = self.known(name, inputs)
        if outcome is not None:
            return outcome
        mine = self._attempt(name, make)
        outcome = from_lead(lambda: mine)  # which has written its files by now
        return self.take(outcome, inputs)

    def known(self, name: str, inputs: Mapping[str, Any]) -> Outcome | None:
        """The outcome of a stage that was finished before; None where it has to run."""
        outcome = from_lead(lambda: self._finished(name, _key(inputs)))
        if outcome is not None:
            self.outcomes.append(outcome)
        return outcome

    def take(
        self, outcome: Outcome, inputs: Mapping[str, Any], files: Mapping[str, bytes] | None = None
    ) -> Outcome:
        """Keep an outcome, with its files where they came from elsewhere: those first."""
        for file, content in (files or {}).items():
            write_atomic(self.folder / file, content)
        record = {
            "name": outcome.name,
            "key": _key(inputs),
            "seconds": outcome.seconds,
            "result": outcome.result,
            "error": outcome.error,
            "trace": outcome.trace,
        }
        write_atomic(self._file(outcome.name), json.dumps(record, indent=1, allow_nan=False) + "\n")
        self.outcomes.append(outcome)
        return outcome

    def _file(self, name: str) -> Path:
        return self.folder / "stages" / f"{name.replace('/', '--')}.json"

    def _finished(self, name: str, key: str) -> Outcome | None:
        try:
            record = parse_json(self._file(name))
        except RunFolderError:
            return None  # not there, or cut short by a full disk: the stage runs again
        if record.get("key") != key or record.get("result") is None:
            return None
        result: Result = record["result"]
        if not all((self.folder / file).exists() for file in result.get("files", [])):
            return None
        return Outcome(name, result, None, float(record["seconds"]), reused=True)

    def _attempt(self, name: str, make: Callable[[Progress], Result]) -> Outcome:
        begin = time.perf_counter()
        result: Result | None = None
        error = trace = None
        try:
            result = make(self.announce(name))
            json.dumps(result, allow_nan=False)  # what cannot be kept is a failure of this stage alone
        except Exception as problem:  # whatever it is, the other stages go on and the report says it
            if not all_failed(problem):
                raise
            result, error, trace = None, f"{type(problem).__name__}: {problem}", traceback.format_exc()
        return Outcome(name, result, error, round(time.perf_counter() - begin, 2), trace=trace)

    def failures(self) -> list[Outcome]:
        """Stages that gave an error."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]
