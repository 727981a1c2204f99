"""Engines: their names, and sentences where nothing answers."""

from __future__ import annotations

import os
import re
import sys
import time

import pytest

from upi.core.engine import Engine, engine_of
from upi.core.errors import ConfigError, WorkerError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        ("local", Engine()),
        ("local:3", Engine(processes=3)),
        ("dask://rack1:8786", Engine("dask", "rack1:8786")),
        ("ray://auto", Engine("ray", "auto")),
    ],
)
def test_names(text: str, engine: Engine) -> None:
    assert engine_of(text) == engine
    assert str(engine) == text


@pytest.mark.parametrize("text", ["", "locally", "local:0", "local:x", "dask", "dask://", "spark://a"])
def test_other_names_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ConfigError, match="dask://HOST:PORT"):
        engine_of(text)


def test_processes_of_this_machine() -> None:
    assert sorted(Engine(processes=2).map(abs, [-3, 1, -2])) == [1, 2, 3]
    assert list(Engine(processes=2).map(abs, [])) == []


_HELD: list[bytearray] = []


def _loads(number: int) -> int:
    """A piece after whose like a process holds 400 MB more than after its first; gives the process."""
    time.sleep(1.1)  # joblib looks once a second
    if number >= 2:
        _HELD[:] = [bytearray(400_000_000)]
    return os.getpid()


def test_processes_keep_what_they_have_loaded() -> None:
    """Processes that grow are not taken for ones that leak, and stay."""
    engine = Engine(processes=2)
    used = {pid for first in (0, 4) for pid in engine.map(_loads, range(first, first + 4))}
    assert len(used) <= 2
    assert len(list(engine.map(_released, range(2)))) == 2


def _released(_: int) -> None:
    _HELD.clear()


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upi.core.engine.ANSWER", 1)
    with pytest.raises(WorkerError, match=re.escape("no Dask scheduler answers at 127.0.0.1:9")):
        list(engine_of("dask://127.0.0.1:9").map(abs, [1]))


@pytest.mark.parametrize(("kind", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_not_there(kind: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"package {module}: pip install 'upi-xai\[{kind}\]'"):
        list(engine_of(f"{kind}://127.0.0.1:9").map(abs, [1]))


def test_a_ray_cluster_gives_results_as_they_come() -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not among those of development")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        assert sorted(engine_of("ray://auto").map(abs, [-3, 1, -2])) == [1, 2, 3]
        assert ray.is_initialized()  # the cluster of the program that asked stays
        with pytest.raises(WorkerError, match="ray://auto"):
            list(
                engine_of("ray://auto").map(len, ["ab", 3])
            )  # pieces of work raise nothing: a fault of the worker
    finally:
        ray.shutdown()
