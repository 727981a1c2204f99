"""A fit that was cut short goes on where it was, and ends at the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import upi
from tests.conftest import Batches
from upi.core import keeping
from upi.core.errors import ArtifactError

STEPS = 12


def attack(kind: str, net: nn.Module, **options: object) -> upi.UPIGrad | upi.ClassUAP:
    if kind == "class-uap":
        return upi.ClassUAP(net, eps=1.0, steps=STEPS, **options)  # type: ignore[arg-type]
    return upi.UPIGrad(net, eps=1.0, steps=STEPS, prediction_price=0.5, **options)  # type: ignore[arg-type]


class Stop(BaseException):
    """As a signal would come."""


def stop_at(step: int):  # type: ignore[no-untyped-def]
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Stop

    return progress


@pytest.mark.parametrize("kind", ["upi-grad", "class-uap"])
@pytest.mark.parametrize("stops", [(1,), (5,), (3, 7, 11)])
def test_it_ends_at_the_same_bytes(
    kind: str, stops: tuple[int, ...], relu_net: nn.Module, loader: Batches, tmp_path: Path
) -> None:
    whole = attack(kind, relu_net).fit(loader).save(tmp_path / "whole").read_bytes()
    state = tmp_path / "state"
    for step in stops:
        with pytest.raises(Stop):
            attack(kind, relu_net).fit(loader, keep=state, progress=stop_at(step))
        assert state.exists()
    did: list[int] = []
    pattern = attack(kind, relu_net).fit(loader, keep=state, progress=lambda done, _: did.append(done))
    assert did == list(range(stops[-1] + 1, STEPS + 1))  # nothing was done again
    assert pattern.save(tmp_path / "again").read_bytes() == whole
    assert not state.exists()


def test_batches_without_a_correct_image_are_passed_over_as_before(
    relu_net: nn.Module, loader: Batches, tmp_path: Path
) -> None:
    model = upi.Classifier(relu_net)
    x = loader[0][0]
    right = model.predict(x)
    mixed = [
        (x, right),
        (x.flip(3), (model.predict(x.flip(3)) + 1) % 3),
        (x.flip(2), model.predict(x.flip(2))),
    ]
    whole = upi.UPIGrad(relu_net, eps=1.0, steps=9, preset="paper", surrogate=10.0).fit(mixed)
    with pytest.raises(Stop):
        upi.UPIGrad(relu_net, eps=1.0, steps=9, preset="paper", surrogate=10.0).fit(
            mixed, keep=tmp_path / "state", progress=stop_at(5)
        )
    again = upi.UPIGrad(relu_net, eps=1.0, steps=9, preset="paper", surrogate=10.0).fit(
        mixed, keep=tmp_path / "state"
    )
    assert torch.equal(again.delta, whole.delta)
    assert again.provenance == whole.provenance


def test_the_state_of_another_fit_is_refused(relu_net: nn.Module, loader: Batches, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(Stop):
        attack("upi-grad", relu_net).fit(loader, keep=state, progress=stop_at(3))
    with pytest.raises(ArtifactError, match="another job: seed was 0, is 1"):
        attack("upi-grad", relu_net, seed=1).fit(loader, keep=state)
    with pytest.raises(ArtifactError, match="another job: fitted_on"):
        attack("upi-grad", relu_net).fit(loader[1:], keep=state)
    with torch.no_grad():
        next(relu_net.parameters()).mul_(1.01)
    with pytest.raises(ArtifactError, match="another job: model"):
        attack("upi-grad", relu_net).fit(loader, keep=state)


def test_the_state_is_written_while_the_fit_runs(
    relu_net: nn.Module, loader: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LEAST", 0.0)
    monkeypatch.setattr(keeping, "SHARE", 1e9)
    seen = []
    attack("upi-grad", relu_net).fit(
        loader, keep=tmp_path / "state", progress=lambda done, _: seen.append((tmp_path / "state").exists())
    )
    assert all(seen)


def test_facts_that_say_nothing_are_refused(relu_net: nn.Module, loader: Batches, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(Stop):
        attack("upi-grad", relu_net).fit(loader, keep=state, progress=stop_at(3))
    kept = attack("upi-grad", relu_net).keeper(state, loader)
    assert kept is not None
    tensors, _ = kept.load({"delta", "momentum"}) or ({}, {})
    for facts in ({}, {"history": None, "taken": 3}, {"history": ["x"], "taken": 3}):
        kept.write(tensors, facts)
        with pytest.raises(ArtifactError, match="damaged"):
            attack("upi-grad", relu_net).fit(loader, keep=state)
