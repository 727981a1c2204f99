"""Becoming one of the workers that PyTorch's launcher started (``torchrun``), and leaving again.

The launcher says in variables of the environment who this worker is and where all of them meet. Guards
against waiting for ever for workers that nobody started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from upi.core.distributed import Team, from_lead, join, keep_store, require_same, team
from upi.core.errors import ConfigError, WorkerError
from upi.core.version import versions

#: What a launcher sets, and where each of this machine's workers stands.
VARIABLES, LOCAL = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"), "LOCAL_RANK"
#: Seconds until all workers must have come, and days that one may work while the others wait.
MEETING, WORKING = 120, 7


def asked_for(environment: Mapping[str, str]) -> Team | None:
    """Which worker of how many a launcher's variables make of this process; None without them.

    Raises:
        ConfigError: Some are missing, or they are no numbers that fit each other.
    """
    if "WORLD_SIZE" not in environment:
        return None
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is set, as by a launcher of several workers, but {', '.join(missing)} is not: start "
            "them with torchrun, or unset WORLD_SIZE"
        )
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    except ValueError:
        rank, size = -1, 0
    if not 0 <= rank < size:
        told = f"RANK={environment['RANK']} and WORLD_SIZE={environment['WORLD_SIZE']}"
        raise ConfigError(
            f"{told} are not the number of a worker and of all workers: start them with torchrun"
        )
    return Team(rank, size)


def refuse_several(what: str) -> None:
    """Raise ``ConfigError`` where a launcher has started several workers for a job that takes one."""
    wanted = asked_for(os.environ)
    if wanted is not None and wanted.size > 1:
        raise ConfigError(f"{what} runs in one process: start it without a launcher of several workers")


@contextmanager
def workers(*, meeting: float = MEETING) -> Iterator[Team]:
    """Inside, this process shares its work with those that a launcher started; alone where none did.

    A program with a process group of its own shares, among all its processes, what it does inside and nothing
    else.

    On GPUs workers talk by NCCL and each takes the device of its number, elsewhere by gloo. A worker has
    one thread unless ``OMP_NUM_THREADS`` says otherwise, as under torchrun: equal threads, equal numbers.

    Args:
        meeting: Seconds until all workers must have come.

    Raises:
        ConfigError: The launcher's variables make no sense, or workers differ in versions or threads.
        WorkerError: Not all workers came.
    """
    wanted = asked_for(os.environ)
    if dist.is_available() and dist.is_initialized():
        join(True)
        try:
            yield team()
        finally:
            join(False)
        return
    if wanted is None:
        yield team()
        return
    _meet(wanted, meeting)
    join(True)
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(1)
    require_same("version", {**versions(), "threads": torch.get_num_threads()})
    yield wanted
    from_lead(sys.stdout.flush)  # a worker that leaves early may have the others ended by the launcher
    dist.barrier()  # groups are taken apart together: none while another worker still hears from it
    keep_store(None)
    join(False)
    dist.destroy_process_group()  # after an error the process ends, and with it what it held


def _meet(wanted: Team, meeting: float) -> None:
    """Find the other workers."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get(LOCAL, "0")) % torch.cuda.device_count())
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=meeting)))
        store.set_timeout(timedelta(seconds=meeting))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore("group", store),
            rank=wanted.rank,
            world_size=wanted.size,
            timeout=timedelta(days=WORKING),
        )
    except (RuntimeError, ValueError) as error:
        raise WorkerError(
            f"not all of {wanted.size} workers came to {place} within {meeting:.0f} s: start them with "
            f"torchrun, or unset {', '.join(VARIABLES)}"
        ) from error
    keep_store(PrefixStore("words", store))
