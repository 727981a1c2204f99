"""Jobs made of steps (UPI-PCA, evaluations) that were cut short go on, and end at the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import Batches
from upi.attacks.support.row_search import RowSearch
from upi.attacks.support.selection import Selection
from upi.core.errors import ArtifactError


class Stop(BaseException):
    """As a signal would come."""


class Dies:
    """Lets a function run some times, then stops everything."""

    def __init__(self, function: Callable[..., Any], times: int) -> None:
        self.function, self.left = function, times

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.left == 0:
            raise Stop
        self.left -= 1
        return self.function(*arguments, **named)


def attack(net: nn.Module, **options: Any) -> upi.UPIPCA:
    return upi.UPIPCA(net, eps=1.0, components=3, **options)


#: Where a fit is cut short: before the n-th call of a part of the search.
CUTS = [
    (RowSearch, "solve", 1),
    (Selection, "ranked", 0),
    (Selection, "ranked", 1),
    (Selection, "scores", 0),
    (Selection, "scores", 1),
]


@pytest.mark.parametrize("price", [0.0, 0.5])
@pytest.mark.parametrize(("place", "name", "times"), CUTS)
def test_upi_pca_ends_at_the_same_bytes(
    place: type, name: str, times: int, price: float, relu_net: nn.Module, loader: Batches, tmp_path: Path
) -> None:
    whole = attack(relu_net, prediction_price=price).fit(loader).save(tmp_path / "whole").read_bytes()
    state, passes = tmp_path / "state", _Passes(loader)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):  # noqa: PT012
        dies = Dies(getattr(place, name), times)
        patch.setattr(place, name, lambda *arguments, **named: dies(*arguments, **named))
        attack(relu_net, prediction_price=price).fit(passes, keep=state)
    assert state.exists()
    first = passes.count
    again = attack(relu_net, prediction_price=price).fit(passes, keep=state)
    assert again.save(tmp_path / "again").read_bytes() == whole
    assert not state.exists()
    alone = _Passes(loader)
    attack(relu_net, prediction_price=price).fit(alone, keep=tmp_path / "other")
    assert passes.count - first < alone.count  # what was finished was not done again


class _Passes:
    """A loader that counts the passes over it."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.count = batches, 0

    def __iter__(self) -> Iterator[Any]:
        self.count += 1
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def test_the_state_of_another_search_is_refused(
    relu_net: nn.Module, loader: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    with monkeypatch.context() as patch, pytest.raises(Stop):  # noqa: PT012
        dies = Dies(RowSearch.solve, 1)
        patch.setattr(RowSearch, "solve", lambda *arguments: dies(*arguments))
        attack(relu_net).fit(loader, select=loader[:2], keep=state)
    with pytest.raises(ArtifactError, match="another job: components was 3, is 2"):
        upi.UPIPCA(relu_net, eps=1.0, components=2).fit(loader, select=loader[:2], keep=state)
    with pytest.raises(ArtifactError, match="another job: select"):
        attack(relu_net).fit(loader, select=loader[1:], keep=state)
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="truncated"):
        attack(relu_net).fit(loader, select=loader[:2], keep=state)


class _Counts(nn.Module):
    """A network that counts the images it is given."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.images = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        found: Tensor = self.net(x)
        return found


def _table(net: nn.Module, pattern: upi.Perturbation, loader: Any, **options: Any) -> upi.Evaluation:
    return upi.evaluate(net, {"one": pattern}, loader, **options)


@pytest.mark.parametrize("done", [1, 2])
def test_an_evaluation_goes_on_behind_the_last_batch_that_was_kept(
    done: int, relu_net: nn.Module, loader: Batches, tmp_path: Path
) -> None:
    net, state = _Counts(relu_net), tmp_path / "state"
    model = upi.Classifier(relu_net)
    labelled = [(x, model.predict(x)) for x, _ in loader[:4]]
    pattern = upi.UPIGrad(net, eps=1.0, steps=2).fit(loader)
    whole = _table(net, pattern, labelled)
    before = net.images

    def stop(number: int, _: int) -> None:
        if number == done:
            raise Stop

    with pytest.raises(Stop):
        _table(net, pattern, labelled, keep=state, progress=stop)
    assert state.exists()
    before = net.images
    again = _table(net, pattern, labelled, keep=state)
    assert not state.exists()
    spent = net.images - before
    before = net.images
    _table(net, pattern, labelled)
    assert spent < (1 - 0.8 * done / 4) * (net.images - before)
    assert again.rows == whole.rows or str(again.rows) == str(whole.rows)  # NaN is not equal to itself
    assert again.flags == whole.flags
    assert again.n_seen == whole.n_seen
    for row, column in whole.per_sample.items():
        for name, values in column.items():
            np.testing.assert_array_equal(again.per_sample[row][name], values)


def test_figures_of_other_images_are_not_taken(relu_net: nn.Module, loader: Batches, tmp_path: Path) -> None:
    """The state is of the same evaluation; the loader brings other images this time."""
    model, state = upi.Classifier(relu_net), tmp_path / "state"
    labelled = [(x, model.predict(x)) for x, _ in loader[:3]]
    pattern = upi.UPIGrad(relu_net, eps=1.0, steps=2).fit(loader)

    def stop(number: int, _: int) -> None:
        if number == 2:
            raise Stop

    with pytest.raises(Stop):
        _table(relu_net, pattern, labelled, keep=state, progress=stop)
    other = [labelled[0], (labelled[1][0].flip(3), model.predict(labelled[1][0].flip(3))), labelled[2]]
    whole, again = _table(relu_net, pattern, other), _table(relu_net, pattern, other, keep=state)
    for row, column in whole.per_sample.items():
        np.testing.assert_array_equal(again.per_sample[row]["dissimilarity"], column["dissimilarity"])


def test_another_evaluation_is_refused(relu_net: nn.Module, loader: Batches, tmp_path: Path) -> None:
    model, state = upi.Classifier(relu_net), tmp_path / "state"
    labelled = [(x, model.predict(x)) for x, _ in loader[:3]]
    pattern = upi.UPIGrad(relu_net, eps=1.0, steps=2).fit(loader)

    def stop(number: int, _: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        _table(relu_net, pattern, labelled, keep=state, progress=stop)
    with pytest.raises(ArtifactError, match="another job: draws was 5, is 4"):
        _table(relu_net, pattern, labelled, keep=state, draws=4)
    changed = upi.Perturbation(-pattern.delta, pattern.ball, pattern.provenance)
    with pytest.raises(ArtifactError, match=r"another job: rows\.one was"):
        _table(relu_net, changed, labelled, keep=state)
    assert torch.equal(changed.delta, -pattern.delta)
