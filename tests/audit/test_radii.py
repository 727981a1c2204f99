"""The proposed radius is the largest that leaves predictions alone, and says where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from upi.audit.radii import changed_at, leading, propose, rounded_down
from upi.audit.run import Audit
from upi.audit.settings import AuditSettings
from upi.audit.work import Runner, Work, carry_out
from upi.experiments.fitting import Spec, Splits
from upi.experiments.stages import StageStore
from upi.network.classifier import Classifier
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation

pytestmark = pytest.mark.slow


class Edge(nn.Module):
    """A smooth network of two classes, cut along the first pixel at 0.5."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        z = (x[:, 0, 0, 0] - 0.5) * (3 + self.inner(x)[:, 0].tanh())
        return torch.stack([-z, z], 1)


def splits(distance: float) -> Splits:
    """Images whose first pixel is 0.5 to both sides by up to ``distance``."""
    rng = torch.Generator().manual_seed(0)
    images = 0.2 + 0.6 * torch.rand(240, 1, 8, 8, generator=rng)
    sides = torch.arange(240) % 2
    gaps = distance * (0.2 + 0.8 * torch.rand(240, generator=rng))
    images[:, 0, 0, 0] = 0.5 + torch.where(sides == 1, gaps, -gaps)
    batch = [(images[place : place + 60], sides[place : place + 60]) for place in range(0, 240, 60)]
    return Splits(batch[:2], batch[2:3], batch[3:], {"fingerprint": "x"})


def test_shares_of_changed_predictions_are_counted() -> None:
    cut = splits(0.4)
    delta = torch.zeros(1, 8, 8)
    delta[0, 0, 0] = 0.1
    pattern = Perturbation(delta, Ball("l2", 0.1))
    first = cut.select[0][0][:, 0, 0, 0]
    expected = [float(((first < 0.5) & (first + eps > 0.5)).double().mean()) for eps in (0.05, 0.2)]
    assert changed_at(Classifier(Edge()), pattern, [0.05, 0.2], cut.select) == pytest.approx(expected)


def test_no_more_predictions_change_than_allowed_and_more_would_beyond() -> None:
    found = propose(Classifier(Edge()), Spec("x", prediction_price=0.0), splits(0.4), limit=0.05)
    assert found.found
    assert found.changed <= 0.05
    beyond = [changed for eps, changed in found.probes if eps > 1.3 * found.eps]
    assert not beyond or beyond[0] > 0.05


def test_a_network_on_the_edge_has_no_radius() -> None:
    found = propose(Classifier(Edge()), Spec("x", prediction_price=0.0), splits(1e-4), limit=0.05)
    assert not found.found
    assert found.changed > 0.05


def test_the_headline_of_such_an_audit_says_it(tmp_path: Path) -> None:
    plain = {
        "effort": "quick",
        "network": {"model": "edge"},
        "perturbations": {"prediction_price": 0.0},
        "threshold": [{"metric": "spearman", "at_least": -1, "among": "all"}],
    }
    audit = Audit(AuditSettings.model_validate(plain), Classifier(Edge()), splits(1e-4), tmp_path)
    work = Work(audit, StageStore(tmp_path, lambda name: lambda done, total: None))
    carry_out([work], Runner())
    headline = audit.verdict(work.found()).headline
    assert "Predictions change at every radius that was tried: already at l2" in headline


def test_two_digits_towards_zero() -> None:
    assert [rounded_down(value) for value in (0.1699, 1.3, 27.99, 0.002)] == [0.16, 1.3, 27.0, 0.002]


def test_radii_beyond_the_first_that_changes_too_much_do_not_count() -> None:
    """A larger radius may change fewer predictions by chance."""
    probes = [(0.1, 0.0), (0.2, 0.05), (0.3, 0.2), (0.4, 0.01)]
    assert leading(probes, 0.05) == probes[:2]
    assert leading([(0.1, 0.3), (0.2, 0.0)], 0.05) == []
