"""Each combination does what docs/compatibility.md says."""

from __future__ import annotations

import importlib.util

import pytest

from tests.compatibility.cases import CASES, Case
from tests.compatibility.table import PATH, rendered

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*"),
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
    pytest.mark.filterwarnings("ignore::UserWarning:captum"),
    pytest.mark.filterwarnings("ignore::UserWarning:quantus"),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.group}: {case.title}" for case in CASES])
def test_the_outcome_is_the_one_that_is_written(case: Case) -> None:
    for package in case.packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    assert case.run() == case.outcome


def test_the_page_is_that_of_the_cases() -> None:
    assert PATH.read_text() == rendered(), "write it again: python -m tests.compatibility.table"
