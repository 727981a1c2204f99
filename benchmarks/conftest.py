"""Options and records that all benchmarks share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.common import Scale
from upi.core.allocation import keep_freed_memory


def pytest_configure() -> None:
    """Memory as on the command line."""
    keep_freed_memory()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="cpu, or cuda where there is one")
    parser.addoption("--smoke", action="store_true", help="next to no work: does everything run?")


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """Where the work runs and how much of it is done."""
    return Scale(request.config.getoption("--device"), request.config.getoption("--smoke"))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """What decides about speed; not the name of the machine."""
    cpu = machine_info.get("cpu", {})
    keep = {"cpu": {key: cpu.get(key) for key in ("brand_raw", "count", "arch")}}
    device = config.getoption("--device")
    keep["device"] = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    keep["threads"] = torch.get_num_threads()
    keep["torch"] = torch.__version__
    keep["python"] = machine_info.get("python_version")
    machine_info.clear()
    machine_info.update(keep)


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    """The commit alone."""
    found = {key: commit_info.get(key) for key in ("id", "dirty")}
    commit_info.clear()
    commit_info.update(found)
