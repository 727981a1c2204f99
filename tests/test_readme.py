"""The README keeps its word: its example runs, its pictures and documents exist."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest

import upi
from upi.attacks.registry import fitted
from upi.cli.registry import COMMANDS
from upi.datasets.registry import DATASETS
from upi.dissimilarity import DISSIMILARITIES
from upi.models.nets import NETS
from upi.models.public import PUBLIC
from upi.saliency import MAPS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs_and_shows_the_attack_above_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = README.split("## In Python")[1].split("\n`saliency`")[0]
    code = textwrap.dedent(section)
    monkeypatch.chdir(tmp_path)
    smaller = code.replace('"test": 1000', '"test": 150')
    out = subprocess.run([sys.executable, "-c", smaller], capture_output=True, text=True, check=True)
    means = eval(out.stdout)
    assert means["random"] < means["upi-grad"] < means["per-image"]
    assert upi.Perturbation.load(tmp_path / "delta.safetensors").ball.eps == 2.0


def test_pictures_and_documents_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"`(docs/[\w./-]+)`", README):
        assert (ROOT / target).exists(), target


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("commands", COMMANDS),
        ("maps", MAPS),
        ("dissimilarities", DISSIMILARITIES),
        ("attacks", fitted()),
        ("datasets", DATASETS),
        ("public networks", PUBLIC),
        ("architectures", NETS),
    ],
)
def test_the_lists_of_names_are_those_of_the_registries(kind: str, names: Iterable[str]) -> None:
    (line,) = re.findall(rf"^\| {kind}(?: \(`--\w+`\))? \| (.*) \|$", README, flags=re.MULTILINE)
    assert line == ", ".join(f"`{name}`" for name in names)


def test_the_version_is_one_everywhere() -> None:
    def first(pattern: str, name: str) -> str:
        return re.findall(pattern, (ROOT / name).read_text(), flags=re.MULTILINE)[0]

    version = first(r'^version = "([\d.]+)"', "pyproject.toml")
    assert first(r"^version: ([\d.]+)", "CITATION.cff") == version
    assert first(r"^## ([\d.]+)", "CHANGELOG.md") == version
