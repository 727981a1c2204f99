"""Where a run may be written: never over something that is not a run, nor over a run that nobody gave up.

Imports nothing heavy: the command line looks here before it imports PyTorch.
"""

from __future__ import annotations

from pathlib import Path

from upi.core.errors import RunFolderError

#: The file by which a run folder is known.
CONFIG = "config.json"


def free_place(out: str | Path, *, force: bool) -> Path:
    """The real path of a run folder that may be written; raises as ``check_free``."""
    try:
        path = Path(out).resolve()
        check_free(path, force)
    except OSError as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"cannot use {str(out)[:80]!r} as a run folder: {error.strerror}") from error
    if path == Path.cwd():
        raise RunFolderError(
            "a run folder cannot replace the current folder; choose another one", options=("out",)
        )
    return path


def check_free(out: Path, force: bool) -> None:
    """See whether a run may be written at ``out``.

    Args:
        out: The place.
        force: A run that is there may be replaced, or gone on with.

    Raises:
        RunFolderError: Something is there that is no run, or a run.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise RunFolderError(f"{out} exists and is not a folder; choose another place", options=("out",))
    if not any(out.iterdir()):
        return
    if not (out / CONFIG).exists():
        raise RunFolderError(f"{out} exists and is not a run folder (no {CONFIG}); it is never replaced")
    if not force:
        raise RunFolderError(
            f"{out} exists already; force its replacement, or choose another place", options=("force", "out")
        )
