"""What this process does with memory that it has freed.

The GNU C library hands large blocks back to the system as soon as they are free, and each pass asks for them
again, a page fault every 4 KiB: at 224 pixels up to a quarter of a step's time (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

#: Parameters of mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, with what they are set to.
SETTINGS = {-1: 2**31 - 1, -2: 64 * 2**20, -3: 2**30}


def keep_freed_memory() -> bool:
    """Keep freed memory in this process until it ends; its peak stays what it is.

    The command line does so; other programs may, before they compute.

    Returns:
        Whether anything was changed: only the GNU C library knows these settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    return change is not None and all(change(name, value) == 1 for name, value in SETTINGS.items())
