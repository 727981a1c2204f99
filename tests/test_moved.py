"""Module names of version 0.1."""

from __future__ import annotations

import importlib
import sys
import warnings

import pytest

from upi.moved import MOVED, now


@pytest.mark.parametrize("old", MOVED)
def test_old_names_lead_to_the_new_modules_and_say_so(old: str) -> None:
    for name in [name for name in sys.modules if name == old or name.startswith(f"{old}.")]:
        del sys.modules[name]
    new = now(old)
    assert new is not None
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = importlib.import_module(old)
    assert any(f"{old} is {new} since version 0.2" in str(one.message) for one in heard)
    assert found is importlib.import_module(new)
    assert found.__spec__ is not None
    assert found.__spec__.name == new
    assert found.__name__ == new


def test_parts_of_old_packages_are_found() -> None:
    assert now("upi.zoo.nets.vit") == "upi.models.nets.vit"
    with pytest.warns(DeprecationWarning, match="since version 0.2"):
        found = importlib.import_module("upi.zoo.nets.vgg")
    assert found is importlib.import_module("upi.models.nets.vgg")


def test_names_that_never_were_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match="nonsense"):
        importlib.import_module("upi.nonsense")
