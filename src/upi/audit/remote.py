"""A piece of an audit in another process, which may be on another machine.

What is asked for travels as settings and a job; the process loads network and images itself, keeps them for
the next piece, and refuses where they are not those that were asked for. Files come back with the result.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from upi.audit.jobs import Bench, Job
from upi.audit.opening import Subject, open_subject
from upi.audit.settings import AuditSettings
from upi.core.allocation import keep_freed_memory
from upi.core.distributed import sharding
from upi.core.errors import ConfigError
from upi.core.storage import write_atomic
from upi.core.version import versions
from upi.experiments.stages import Outcome, StageStore


@dataclass(frozen=True)
class Request:
    """What is asked of a worker.

    Attributes:
        number: Place among the requests.
        settings: Of the audit, as plain JSON values, with places that are there on every machine.
        model: Fingerprint of the network that is meant.
        data: Which images are meant, and how they are split.
        job: The piece.
        files: What it reads, by the place in a run folder.
        states: Where it may keep its state, if the worker sees the same files.
        threads: Threads of the network's operations: the last bits may depend on them.
        versions: Of the libraries.
    """

    number: int
    settings: Mapping[str, Any]
    model: str
    data: Mapping[str, Any]
    job: Job
    files: Mapping[str, bytes] = field(default_factory=dict)
    states: str | None = None
    threads: int = 1
    versions: Mapping[str, str] = field(default_factory=versions)


@dataclass(frozen=True)
class Answer:
    """What a worker gives back."""

    number: int
    outcome: Outcome
    files: Mapping[str, bytes]


_KEPT = threading.local()  # a cluster may run several pieces in threads of one process


def answer(request: Request) -> Answer:
    """Do a piece; whatever goes wrong with it is in its outcome."""
    with TemporaryDirectory(prefix="upi-") as place:
        folder = Path(place)
        for file, content in request.files.items():
            write_atomic(folder / file, content)
        store = StageStore(folder, _silent)
        with sharding(request.settings.get("shard_size")):
            outcome = store.run(request.job.name, {}, lambda progress: _made(request, folder, progress))
        named = (outcome.result or {}).get("files", ())
        return Answer(request.number, outcome, {file: (folder / file).read_bytes() for file in named})


def _made(request: Request, folder: Path, progress: Any) -> dict[str, Any]:
    import torch

    keep_freed_memory()
    torch.set_num_threads(request.threads)
    if versions() != request.versions:
        raise ConfigError(f"this worker has {versions()}, the sweep was started with {request.versions}")
    subject = _subject(request)
    states = None if request.states is None else Path(request.states)
    return request.job.make(Bench(subject.model, subject.splits, folder, _silent, states), progress)


def _subject(request: Request) -> Subject:
    """Network and images of a request, from the last one where everything that was asked for is the same.

    Raises:
        ConfigError: This machine has other ones at the places that the settings name.
    """
    asked = json.dumps([request.model, request.data, request.settings], sort_keys=True)
    if getattr(_KEPT, "asked", None) != asked:
        _KEPT.asked, _KEPT.subject = None, None
        subject = open_subject(AuditSettings.model_validate(request.settings))
        _require("network", subject.about["fingerprint"], request.model)
        _require("images", subject.splits.origin, request.data)
        _KEPT.asked, _KEPT.subject = asked, subject
    kept: Subject = _KEPT.subject
    return kept


def _require(what: str, mine: Any, meant: Any) -> None:
    if mine != meant:
        raise ConfigError(f"this worker finds other {what} ({mine}) than the sweep ({meant})")


def _silent(name: str) -> Callable[[int, int], None]:
    """Progress that nobody sees: the sweep counts finished pieces."""
    return lambda done, total: None
