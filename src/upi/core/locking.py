"""One run at a time on a folder: a lock that ends with its process, however that ends.

The lock is the operating system's (``flock``) on a small hidden file beside the folder. A file that a dead
process left holds nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upi.core.distributed import from_lead, leads
from upi.core.errors import RunFolderError

#: What file systems without locks answer.
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def lock_of(folder: Path) -> Path:
    """The file beside a folder that stands for it."""
    return folder.parent / f".{folder.name[:60]}.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which need not exist yet, for this process; of several workers the leading one does.

    Raises:
        RunFolderError: Another process holds it, or its parent cannot be written.
    """
    path = lock_of(folder.resolve())
    descriptor = from_lead(lambda: _taken(path, folder))
    if not leads():
        yield
        return
    try:
        yield
    finally:
        if _same(path, descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _taken(path: Path, folder: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFolderError(f"cannot create a run folder in {path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace")
            os.close(descriptor)
            if error.errno in UNSUPPORTED:
                raise RunFolderError(
                    f"{path.parent}: no locks on this file system: {error.strerror}"
                ) from error
            raise RunFolderError(
                f"another run is at work on {folder} ({holder or 'process unknown'}); wait for it, or choose "
                "another place",
                options=("out",),
            ) from error
        if _same(path, descriptor):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return descriptor
        os.close(descriptor)  # whoever held it has finished in between and taken its file away


def _same(path: Path, descriptor: int) -> bool:
    """Whether the path is still the file that is open."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
