"""Versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch


def library_version() -> str:
    """Version of this library, also when it runs from its source tree."""
    try:
        return version("upi-xai")
    except PackageNotFoundError:
        return "source"


def versions() -> dict[str, str]:
    """Versions of this library, torch and Python."""
    return {"upi": library_version(), "torch": torch.__version__, "python": platform.python_version()}
