"""Memory that stays in the process after it is freed."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from upi.core.allocation import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
def work():
    held = [torch.ones(10 << 20) for _ in range(4)]  # 40 MiB each: glibc always gives such blocks back
for _ in range(5):  # until the heap has found its shape
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.skipif(not GLIBC, reason="knows the GNU C library alone")
def test_kept_memory_is_not_asked_for_again() -> None:
    found = {}
    for way in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        kept, faults = done.stdout.split()
        assert kept == str(way == "keep")
        found[way] = int(faults)
    assert found["keep"] < found["leave"] / 2, found


HELD = """
import resource, torch
from upi.core.allocation import keep_freed_memory, release_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
keep_freed_memory()
held = [torch.ones(10 << 20) for _ in range(10)]
del held
before = resident()
print(release_freed_memory(), before, resident())
"""


@pytest.mark.skipif(not GLIBC, reason="knows the GNU C library alone")
def test_kept_memory_is_handed_back_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    some, before, after = done.stdout.split()
    assert some == "True"
    assert int(before) - int(after) > 350  # of ten blocks of 40 MiB
