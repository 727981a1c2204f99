"""The parts of an audit: each counted once, and every one of them done when the audit is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
from rich.progress import Progress

from tests.audit.test_radii import Edge, splits
from upi.audit.cells import is_part
from upi.audit.run import Audit
from upi.audit.settings import AuditSettings
from upi.audit.work import Runner, Work, carry_out
from upi.cli.audit_display import AuditDisplay
from upi.core.engine import Engine
from upi.core.rows import UPI_GRAD
from upi.experiments.stages import StageStore
from upi.network.classifier import Classifier

pytestmark = pytest.mark.slow
T = TypeVar("T")
R = TypeVar("R")


def audit_of(tmp_path: Path, **perturbations: object) -> Audit:
    plain = {
        "effort": "quick",
        "network": {"model": "edge"},
        "explanations": {"maps": ["gradient", "integrated_gradients", "unit_smoothgrad"]},
        "perturbations": {"prediction_price": 0.0, **perturbations},
    }
    return Audit(AuditSettings.model_validate(plain), Classifier(Edge()), splits(0.4), tmp_path)


@pytest.mark.parametrize(
    ("norms", "radii", "each"), [(["l2", "linf"], "auto", 1), (["l2"], [0.5, 1.0, 2.0], 3)]
)
def test_no_part_is_lost(tmp_path: Path, norms: list[str], radii: object, each: int) -> None:
    """Cells of other maps and norms are parts of their own, also before their radius is known."""
    found = audit_of(tmp_path, norms=norms, radii=radii).parts()
    ends = [name.rpartition(": ")[2] for name in found]
    cells = len(norms) * 3 * each
    assert ends.count(UPI_GRAD) == ends.count("evaluate on test") == cells
    assert ends.count("ceiling") == cells / 3
    assert sum(name.startswith("radius: ") for name in found) == (len(norms) if radii == "auto" else 0)


def test_names_from_before_the_radius() -> None:
    assert is_part("gradient-l2-#0: upi-grad", "gradient-l2-0.5: upi-grad")
    assert not is_part("gradient-l2-#0: upi-grad", "gradient-linf-0.5: upi-grad")
    assert not is_part("gradient-l2-#0: upi-grad", "gradient-l2-0.5: upi-grad, fit 2")
    assert not is_part("gradient-l2-0.5: upi-grad", "gradient-l2-0.25: upi-grad")


class _Backwards(Engine):
    """Does pieces here, the last ones first."""

    def map(self, function: Callable[[T], R], items: Sequence[T], *, threads: int = 1) -> Iterator[R]:
        for item in reversed(items):
            yield function(item)


@pytest.mark.parametrize("radii", ["auto", [0.5, 1.0]])
@pytest.mark.parametrize("engine", [None, _Backwards()], ids=["in order", "in any order"])
def test_the_bar_ends_where_it_was_said_to_end(
    tmp_path: Path, radii: object, engine: Engine | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = audit_of(tmp_path, radii=radii)
    subject = SimpleNamespace(model=audit.model, splits=audit.splits)
    monkeypatch.setattr("upi.audit.remote._subject", lambda request: subject)
    display, parts = AuditDisplay(Progress(disable=True)), audit.parts()
    display.expect(parts)
    work = Work(audit, StageStore(tmp_path, display))
    carry_out([work], Runner(engine, told=lambda _, *done: display.finished(*done)))
    assert work.error is None
    assert all(outcome.error is None for outcome in work.store.outcomes)
    assert display.parts == []
    assert display.base == pytest.approx(sum(parts.values()))
