"""Writing files whole: beside, flush, rename.

Guards against half-written results after a crash, Ctrl-C or a full disk: a
reader sees the old file or the new one, never a part.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from upi.core.distributed import leads
from upi.core.errors import RunFolderError

#: How often a folder that vanishes is made anew before it counts as one that cannot be written.
ATTEMPTS = 100


def write_atomic(path: str | Path, content: bytes | str) -> Path:
    """Write ``content`` to ``path`` so that it appears complete or not at all; of several workers the leading
    one does.

    Raises:
        RunFolderError: The folder cannot be written or the disk is full. The
            former content of ``path``, if any, is untouched.
    """
    path = Path(path)
    if not leads():
        return path
    data = content.encode() if isinstance(content, str) else content
    temporary: Path | None = None
    try:
        descriptor, temporary = _beside(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunFolderError(
            f"cannot write {path} ({len(data)} bytes): {reason}; nothing was changed"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def _beside(path: Path, attempts: int = ATTEMPTS) -> tuple[int, Path]:
    """A new file, open, in the folder of ``path``, which is made, and made again where another process that
    shares it takes it away in between."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except (FileNotFoundError, FileExistsError):  # the latter is mkdir's word for one that has just vanished
        if attempts == 1:
            raise
        return _beside(path, attempts - 1)
    return descriptor, Path(name)


def remove_if_empty(folder: Path) -> None:
    """Take a folder away unless it holds something; another process may take it away, or write there, at
    the same time."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a loss of power, where the system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise
    finally:
        os.close(descriptor)
