"""One of several workers of a small reproduction: python -m tests.experiments.reproduce.work FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.experiments.reproduce.test_reproduce import little_work
from upi.cli.app import app

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        little_work(patch)
        app(["reproduce", "mnist", "--arch", "small-cnn", "--out", str(Path(sys.argv[1]))])
