"""The benchmarks on the panel run on a tiny network, go on where they stopped, and make their tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks import defaults, optimisers, panel
from torch import nn

import upi
from tests.conftest import convolutional, images
from upi.datasets.dataset import Dataset

pytestmark = pytest.mark.slow


def tiny() -> panel.Member:
    model = upi.Classifier(convolutional(nn.ReLU))
    x = images(32)
    data = Dataset("tiny", x, model.predict(x), tuple("abcd"))
    fit, select = data.take(torch.arange(20)), data.take(torch.arange(20, 32))
    return panel.Member("digits", "tiny", model, fit, select, 1.0, 3, 10)


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel, "RESULTS", tmp_path)
    for module in (panel, defaults, optimisers):
        monkeypatch.setattr(module, "MEMBERS", {"digits": tiny})


def test_every_optimiser_is_measured_once_and_tabulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisers, "SEEDS", (0, 1))
    optimisers.measure("digits")
    kept = json.loads((tmp_path / "optimisers-digits.json").read_text())
    assert len(kept["lines"]) == 1 + 2 * len(optimisers.OPTIMISERS)
    assert kept["about"]["n_fit"] == 20
    monkeypatch.setattr(panel.Member, "measure", lambda *_: pytest.fail("measured again"))
    optimisers.measure("digits")
    lines = optimisers.table().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[3:]] == list(optimisers.OPTIMISERS)


def test_equal_passes_start_from_the_same_point_and_stay_in_the_ball() -> None:
    member = tiny()
    with member.model.frozen():
        for fit in optimisers.OPTIMISERS.values():
            assert float(fit(member, 0).delta.norm()) <= 1.0 + 1e-5


def test_every_question_has_its_default_and_its_table(tmp_path: Path) -> None:
    defaults.measure("digits")
    kept = json.loads((tmp_path / "defaults-digits.json").read_text())["lines"]
    assert "grad: **default**" in kept
    assert "pca: components 1, refinements 0" in kept
    text = "\n".join(defaults.tables())
    asked = [question for question in defaults.QUESTIONS if "max-pooling" not in question]
    assert all(f"## {question}\n" in text for question in asked)
    assert text.count("| **default** |") == len(asked)
