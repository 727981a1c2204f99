"""The page from files alone: rows that nobody declared, faults that are the library's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import upi
from tests.conftest import Batches
from tests.results.test_schema import metrics_of
from upi.core.errors import RunFolderError
from upi.report import build_report, figures, style
from upi.results.folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(relu_net: nn.Module, loader: Batches, tmp_path: Path) -> RunFolder:
    """A run of a small evaluation; the row ``mine`` says how it is shown."""
    content = metrics_of(relu_net, loader)
    for row in content["tables"][0]["rows"]:
        if row["name"] == "mine":
            row.update(title="my own attack", colour="#123456")
    content["tables"][0]["perturbations"] = {"mine": "mine"}
    made = RunFolder(tmp_path)
    made.write_json("metrics.json", content)
    made.write_json("config.json", {"command": "evaluate", "argv": ["upi", "evaluate"], "classes": ["a"]})
    noise = upi.RandomPerturbation(relu_net, eps=1.0).pattern((1, 8, 8))
    made.write_perturbation("mine", noise)
    made.write_per_sample({"gradient": upi.evaluate(relu_net, {"mine": noise}, loader, draws=1)})
    return made


def test_a_row_that_only_its_file_knows_is_shown_as_the_file_says(folder: RunFolder) -> None:
    drawn = {}
    real = figures.distribution

    def watched(columns):  # type: ignore[no-untyped-def]
        drawn.update({row: (style.name(row), style.colour(row)) for row in columns})
        return real(columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "distribution", watched)
        page = build_report(folder).read_text()
    assert "my own attack" in page
    assert ">mine<" not in page
    assert drawn["mine"] == ("my own attack", "#123456")
    assert drawn["random"] == ("noise, equal norm", "#6b7280")
    assert style.name("mine") == "mine"  # only on that page


def test_a_fault_of_the_library_is_not_called_damaged_results(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "distribution", lambda columns: {}["no such key"])
    with pytest.raises(KeyError, match="no such key"):
        build_report(folder)


def test_missing_files_are_named(folder: RunFolder) -> None:
    (folder.path / "per_sample.parquet").unlink()
    with pytest.raises(RunFolderError, match=r"per_sample\.parquet: cannot be read"):
        build_report(folder)


def test_matplotlib_is_left_as_it_was(folder: RunFolder) -> None:
    import matplotlib.pyplot as plt

    before = dict(plt.rcParams)
    build_report(folder)
    assert dict(plt.rcParams) == before
