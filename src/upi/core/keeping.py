"""State of a long job on disk: written whole, in a small share of its time, read back by the same job only.

A job's identity is plain JSON: what its result depends on. A file of another job, of another version, or
one that is damaged is refused with a sentence, never used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from upi.core.errors import ArtifactError, UPIError, WorkerError
from upi.core.storage import write_atomic
from upi.core.tensors import canonical, plain_json, read_tensors

FORMAT, VERSION = "upi-state", "1"
#: Share of a job's time that writing its state may take, and seconds between two writes at the least.
SHARE, LEAST = 0.02, 2.0

State = tuple[Mapping[str, Tensor], Mapping[str, Any]]  # tensors, plain facts

#: Whether someone asked for the state to be written now (a batch scheduler's signal).
_ASKED: ContextVar[list[bool] | None] = ContextVar("upi_asked", default=None)


@contextmanager
def asked_by(flag: list[bool]) -> Iterator[None]:
    """Inside, ``flag[0]`` asks every keeper to write at its next chance; it is set back then."""
    token = _ASKED.set(flag)
    try:
        yield
    finally:
        _ASKED.reset(token)


class Keeper:
    """Keeps the state of one job in one file.

    Args:
        path: The file.
        identity: What the result depends on, as plain JSON values.
        clock: Seconds that only grow; other jumps of the machine's time change nothing.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self.clock = path, clock
        self.identity = plain_json(identity, where="identity of a job")
        self._last, self._cost = clock(), 0.0

    def load(self, names: set[str] | None) -> State | None:
        """Tensors and facts of the job, None where nothing was kept; ``names`` None takes all tensors.

        Raises:
            ArtifactError: The file is damaged, of another version, or of another job.
        """
        try:
            tensors, metadata = read_tensors(self.path, FORMAT, VERSION, names)
        except ArtifactError:
            if self.path.exists():
                raise
            return None
        kept = metadata.get("identity", "")
        if kept != self.identity:
            raise ArtifactError(f"{self.path}: kept by another job: {difference(kept, self.identity)}")
        try:
            facts = json.loads(metadata["facts"])
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{self.path}: damaged: {error}") from error
        return tensors, facts

    def offer(self, state: Callable[[], State]) -> None:
        """Write the state if it is time to, or if someone asked for it."""
        flag = _ASKED.get()
        asked = flag is not None and flag[0]
        if asked or self.clock() - self._last >= max(LEAST, self._cost / SHARE):
            self.write(*state())
            if flag is not None:
                flag[0] = False

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write the state now.

        Raises:
            RunFolderError: It cannot be written.
        """
        begin = self.clock()
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "identity": self.identity,
            "facts": plain_json(facts, where="facts of a job"),
        }
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        write_atomic(self.path, canonical(save(plain, metadata)))
        self._last = self.clock()
        self._cost = self._last - begin

    def drop(self) -> None:
        """Forget the state: the job is done."""
        self.path.unlink(missing_ok=True)


def interrupted(kind: type[BaseException]) -> bool:
    """Whether a job that ends with such an error was cut short, and did not fail by itself.

    A signal and a worker that is gone cut it short; this library's other errors would come again.
    """
    return issubclass(kind, WorkerError) or not issubclass(kind, UPIError)


def difference(before: str, now: str) -> str:
    """What differs between two identities, in a few words."""
    try:
        old, new = _flat(json.loads(before)), _flat(json.loads(now))
    except (ValueError, AttributeError):
        return "it does not say which"
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    shown = [f"{key} was {_short(old.get(key))}, is {_short(new.get(key))}" for key in keys[:3]]
    return "; ".join(shown) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values by dotted names."""
    found = dict[str, Any]()
    for key, value in tree.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
