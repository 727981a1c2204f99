"""Registries: found by file, in order, one thing a name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from upi.core.errors import ConfigError
from upi.core.registry import Registry

HEAD = "from {package} import THINGS\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a registry and two modules that declare something."""
    name = f"things_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(
        f"from upi.core.registry import Registry\nTHINGS = Registry('thing', '{name}')\n"
    )
    head = HEAD.format(package=name)
    (folder / "first.py").write_text(f"{head}@THINGS.add('late', 'a late one', order=9)\ndef f(): return 9\n")
    (folder / "second.py").write_text(f"{head}THINGS.add('early', 'an early one', order=1, size=3)(4)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def _things(package: str) -> Registry[object]:
    __import__(package)
    things: Registry[object] = sys.modules[package].THINGS
    return things


def test_modules_are_found_and_read_in_order(package: str) -> None:
    things = _things(package)
    assert f"{package}.first" not in sys.modules
    assert list(things) == ["early", "late"]
    assert things["early"] == 4
    assert things.entry("early").facts == {"size": 3}
    assert things.entry("late").title == "a late one"
    assert len(things) == 2
    assert things.list() == "early, late"
    assert "other" not in things


def test_unknown_names_list_the_known_ones(package: str) -> None:
    with pytest.raises(ConfigError, match="unknown thing 'other'; known: early, late"):
        _things(package).find("other")


def test_one_name_is_declared_once(package: str, tmp_path: Path) -> None:
    text = f"{HEAD.format(package=package)}THINGS.add('early', 'again')(5)\n"
    (tmp_path / package / "third.py").write_text(text)
    with pytest.raises(ValueError, match=f"{package}.second and {package}.third declare the thing 'early'"):
        list(_things(package))
