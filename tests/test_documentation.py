"""The documents keep their word: their Python runs, their links lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from torch import nn

import upi
from tests.conftest import Batches, convolutional

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
WITH_CODE = [path for path in PAGES if "```python" in path.read_text()]


def test_there_is_something_to_run() -> None:
    assert {path.parent.name for path in WITH_CODE} == {"how-to"}
    assert len(WITH_CODE) == len(list((DOCS / "how-to").glob("*.md")))


@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.stem)
def test_the_python_of_a_how_to_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.stem)
def test_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), target
    for target in re.findall(r"`((?:src|tests|docs|benchmarks|results)/[\w./-]+)`", text):
        assert (ROOT / target).exists(), target


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (DOCS / "index.md").read_text()
    for path in PAGES:
        if path.name != "index.md":
            assert f"\n{path.relative_to(DOCS).with_suffix('')}\n" in index


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    cells = json.loads((ROOT / "notebooks/first_look.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    head = "import matplotlib; matplotlib.use('Agg')\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "results").rglob("README.md")), ids=lambda path: path.parent.name
)
def test_every_line_of_a_table_of_results_has_as_many_cells_as_its_head(path: Path) -> None:
    """Also that the run's own paths stay out of what is published."""
    text = path.read_text()
    widths: list[int] = []
    for line in text.splitlines():
        if line.startswith("|"):
            widths.append(line.count("|"))
        else:
            assert len(set(widths)) <= 1, (path, widths)
            widths = []
    assert text.count("\n|---|") >= 1
    assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp)/", text)


def test_the_example_in_the_package_s_docstring_runs(loader: Batches) -> None:
    lines = [line for line in str(upi.__doc__).splitlines() if line.startswith("    ")]
    assert len(lines) == 4
    known = {"upi": upi, "net": convolutional(nn.ReLU), "loader": loader, "test_loader": loader}
    exec(textwrap.dedent("\n".join(lines)), known)
    assert set(known["result"].rows) >= {"upi-grad", "random", "per-image"}  # type: ignore[attr-defined]
