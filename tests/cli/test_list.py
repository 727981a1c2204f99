"""``upi list`` names what the options accept."""

from __future__ import annotations

import pytest

from tests.cli.test_command_line import run
from upi.attacks import ATTACKS
from upi.datasets.registry import DATASETS
from upi.dissimilarity import DISSIMILARITIES
from upi.models.public import PUBLIC
from upi.saliency import MAPS


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("maps", MAPS),
        ("dissimilarities", DISSIMILARITIES),
        ("attacks", ATTACKS),
        ("models", ["module:factory", "torchvision/NAME", *PUBLIC]),
        ("architectures", ["vgg16", "cifar-resnet32"]),
        ("datasets", DATASETS),
    ],
)
def test_every_name_of_a_kind_is_listed(kind: str, names: list[str]) -> None:
    one, everything = run("list", kind), run("list")
    for name in names:
        assert name in one
        assert name in everything


def test_an_unknown_kind_is_one_clear_line() -> None:
    assert "unknown kind 'colours'; known: architectures" in run("list", "colours", code=2)
