"""What this process does with memory that it has freed.

The GNU C library hands large blocks back to the system as soon as they are free, and each pass asks for them
again, a page fault every 4 KiB: at 224 pixels up to a quarter of a step's time (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

#: Parameters of mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, with what they are set to.
SETTINGS = {-1: 2**31 - 1, -2: 64 * 2**20, -3: 2**30}


def _of_the_c_library(name: str) -> Any:
    """One of its functions, None where it has no such one: only the GNU C library knows these."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def keep_freed_memory() -> bool:
    """Keep freed memory in this process until it ends, or until ``release_freed_memory``.

    The command line does so; other programs may, before they compute.

    Returns:
        Whether anything was changed.
    """
    change = _of_the_c_library("mallopt")
    return change is not None and all(change(name, value) == 1 for name, value in SETTINGS.items())


def release_freed_memory() -> bool:
    """Hand back what was kept so far, for other processes of this machine.

    Returns:
        Whether anything was handed back.
    """
    trim = _of_the_c_library("malloc_trim")
    return trim is not None and trim(0) == 1
