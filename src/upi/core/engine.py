"""Where independent pieces of work run: processes of this machine, or a cluster that Dask or Ray keep.

joblib does the sending and the waiting (for Ray its own functions: its backend for joblib gives nothing
before all is done); a piece is a function with plain arguments, and what it gives comes back whole. Pieces of
a worker that dies are done again by another, as far as the cluster can.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from upi.core.allocation import release_freed_memory
from upi.core.errors import ConfigError, WorkerError, first_line

T = TypeVar("T")
R = TypeVar("R")
#: What an engine may be called.
FORMS = "local, local:N, dask://HOST:PORT, ray://HOST:PORT or ray://auto"
#: Seconds that a local process waits for its next piece before it ends: eleven days.
IDLE = 1e6
#: Seconds that a cluster's scheduler has to answer.
ANSWER = 20.0
_PLACE = re.compile(r"(?P<kind>dask|ray)://(?P<address>[^\s/]+)")


@dataclass(frozen=True)
class Engine:
    """A kind of workers.

    Attributes:
        kind: local, dask or ray.
        address: Of the cluster; empty for local processes.
        processes: Local processes; 0 for as many as there are cores to give each ``threads``.
    """

    kind: str = "local"
    address: str = ""
    processes: int = 0

    @property
    def same_files(self) -> bool:
        """Whether workers see the files of this machine."""
        return self.kind == "local"

    def __str__(self) -> str:
        if self.kind != "local":
            return f"{self.kind}://{self.address}"
        return f"local:{self.processes}" if self.processes else "local"

    def map(self, function: Callable[[T], R], items: Sequence[T], *, threads: int = 1) -> Iterator[R]:
        """``function`` of each item, as results come in, in no order.

        Args:
            function: Found by its name in the library that workers have too.
            items: Its arguments.
            threads: Of a local process.

        Raises:
            ConfigError: The package of the cluster is missing.
            WorkerError: The cluster does not answer, or lost its workers.
        """
        from joblib import Parallel, delayed
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        if not items:
            return
        if self.kind == "ray":
            yield from _through_ray(self.address, function, items)
            return
        with ExitStack() as inside:
            jobs = self._begin(inside, threads)
            parallel = Parallel(
                n_jobs=jobs, batch_size=1, pre_dispatch="all", return_as="generator_unordered"
            )
            piece = partial(_grown, function) if self.kind == "local" else function
            try:
                yield from parallel(delayed(piece)(item) for item in items)
            except TerminatedWorkerError as error:
                raise WorkerError(
                    f"a worker of {self} was ended from outside (by the system, where memory ran out)"
                ) from error
            except OSError as error:  # of the cluster's connections: pieces of work raise nothing
                raise WorkerError(f"{self}: {error}") from error

    def _begin(self, inside: ExitStack, threads: int) -> int:
        """Make joblib use these workers; returns how many pieces may run at once."""
        from joblib import parallel_config

        def use(backend: str, **options: object) -> None:
            config: AbstractContextManager[object] = parallel_config(backend, **options)
            inside.enter_context(config)

        if self.kind == "dask":
            inside.enter_context(_dask_client(self.address))
            use("dask")
            return -1
        release_freed_memory()  # to the processes
        use("loky", inner_max_num_threads=threads, idle_worker_timeout=IDLE)
        return self.processes or max(1, (os.cpu_count() or 1) // threads)


def _grown(function: Callable[[T], R], item: T) -> R:
    """A piece in a local process, which may grow: network and images stay for the next piece.

    joblib takes a process for one that leaks where it holds 300 MB more than after its first piece, and ends
    it after each further one; what it has loaded would be loaded again for every piece.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
    return function(item)


def engine_of(text: str) -> Engine:
    """The engine of a name.

    Raises:
        ConfigError: It is none of ``FORMS``.
    """
    local = re.fullmatch(r"local(:(?P<number>[1-9]\d{0,3}))?", text)
    if local is not None:
        return Engine(processes=int(local["number"] or 0))
    place = _PLACE.fullmatch(text)
    if place is None:
        raise ConfigError(f"expected {FORMS}, got {text!r}", options=("engine",))
    return Engine(place["kind"], place["address"])


def _dask_client(address: str) -> AbstractContextManager[object]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "a Dask cluster needs the package distributed: pip install 'upi-xai[dask]'", options=("engine",)
        ) from error
    try:
        client = Client(f"tcp://{address}", timeout=ANSWER)  # type: ignore[no-untyped-call]
        workers = len(client.scheduler_info()["workers"])
    except (OSError, ValueError) as error:
        raise WorkerError(f"no Dask scheduler answers at {address}", options=("engine",)) from error
    if not workers:
        client.close()  # type: ignore[no-untyped-call]
        raise WorkerError(f"the Dask cluster at {address} has no workers", options=("engine",))
    found: AbstractContextManager[object] = client
    return found


def _called(function: Callable[[T], R], item: T) -> R:
    return function(item)


def _through_ray(address: str, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """``function`` of each item on a Ray cluster: ``auto`` is that of this process or of this machine."""
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise ConfigError(
            "a Ray cluster needs the package ray: pip install 'upi-xai[ray]'", options=("engine",)
        ) from error
    own = not (address == "auto" and ray.is_initialized())
    try:
        if own:
            ray.init(address="auto" if address == "auto" else f"ray://{address}", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise WorkerError(f"no Ray cluster answers at {address}", options=("engine",)) from error
    try:
        work: Any = ray.remote(_called)
        waiting = [work.remote(function, item) for item in items]
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            yield from ray.get(done)
    except (RayError, ConnectionError) as error:
        raise WorkerError(f"ray://{address}: {first_line(error)}") from error
    finally:
        if own:
            ray.shutdown()
