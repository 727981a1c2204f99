"""UPI-PCA beyond one vector: forms of the rows, unit length, refinement, price, subspace, flags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import convolutional, images
from upi.attacks.support.objective import MapChange
from upi.attacks.support.row_search import RowForm
from upi.attacks.support.rows import unit_rows
from upi.attacks.support.selection import Selection
from upi.core.errors import ArtifactError, ConfigError
from upi.perturbation.subspace import Subspace

pytestmark = pytest.mark.slow

SHAPE = (1, 8, 8)


@pytest.fixture
def net() -> nn.Module:
    return convolutional(nn.ReLU)


def loaders(n: int = 48) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Fit and select images, labelled as the network of the tests classifies them."""
    x = images(2 * n)
    labels = upi.Classifier(convolutional(nn.ReLU)).predict(x)
    batches = list(zip(torch.split(x, 16), torch.split(labels, 16), strict=True))
    return batches[: n // 16], batches[n // 16 :]


def test_rows_of_unit_length_and_zero_rows() -> None:
    rows = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]))
    torch.testing.assert_close(rows.norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))


def test_one_huge_row_does_not_own_the_first_vector() -> None:
    from upi.linalg import MatrixRows, gram

    rows = torch.randn(200, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[:, 0] *= 3  # what most rows share
    rows[7] = 0
    rows[7, 1] = 1000.0
    assert abs(gram(MatrixRows(rows)).vectors[0, 1]) > 0.99
    assert abs(gram(MatrixRows(unit_rows(rows))).vectors[0, 0]) > 0.95


def test_the_protocol_tries_the_surrogate_and_the_softmax_score(net: nn.Module) -> None:
    assert upi.UPIPCA(net, eps=1).forms == (RowForm(None, 20.0), RowForm("softmax", None))
    softmax = upi.UPIPCA(net, eps=1, saliency=upi.saliency.Gradient(score="softmax"))
    assert softmax.forms == (RowForm(None, 20.0), RowForm(None, None))
    assert upi.UPIPCA(net, eps=1, surrogate=5.0).forms == (RowForm(None, 5.0),)
    assert upi.UPIPCA(net, eps=1, surrogate=None).forms == (RowForm(None, None),)
    assert upi.UPIPCA(net, eps=1, rows="stein").forms == (RowForm(None, None),)
    assert upi.UPIPCA(net, eps=1, saliency=lambda model, x, target: x.sum(1)).forms == (RowForm(None, 20.0),)


def test_the_paper_preset_stays_as_published(net: nn.Module) -> None:
    paper = upi.UPIPCA(net, eps=1, preset="paper")
    assert paper.forms == (RowForm(None, None),)
    assert (paper.tried, paper.drawn, paper.planned, paper.scale) == (1, 1, 0, "none")
    fit, select = loaders()
    found = paper.fit(fit, select=select).provenance
    assert len(found["select_scores"]) == 2
    assert [step["form"] for step in found["search"]] == ["own score, network"]


@pytest.mark.parametrize("solver", ["gram", "sketch", "power"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_refinements_never_lose_on_the_select_images(net: nn.Module, solver: str, norm: str) -> None:
    fit, select = loaders()
    eps = 1.0 if norm == "l2" else 0.1
    plain = upi.UPIPCA(net, eps=eps, norm=norm, solver=solver, refinements=0, clip=True)
    refined = replace(plain, refinements=3)
    objective = MapChange(plain.map, plain.change)
    selection = Selection(plain.classifier, objective, select)
    before, after = (attack.fit(fit, select=select) for attack in (plain, refined))
    scores = selection.scores(torch.stack([before.delta, after.delta]))
    trail = after.provenance["search"]
    assert scores[1] >= scores[0]
    assert len(before.provenance["search"]) < len(trail) <= len(before.provenance["search"]) + 3
    assert float(scores[1]) == pytest.approx(max(s["score"] for s in trail if s["kept"]), rel=1e-4)


def test_a_price_is_paid_when_candidates_are_compared(net: nn.Module) -> None:
    fit, select = loaders()
    for price in (0.0, 2.0):
        attack = upi.UPIPCA(net, eps=1.5, clip=True, prediction_price=price, refinements=0)
        found = attack.fit(fit, select=select)
        worth = Selection(attack.classifier, MapChange(attack.map, attack.change, price), select)
        kept = next(step for step in found.provenance["search"] if step["kept"])
        assert float(worth.scores(found.delta[None])[0]) == pytest.approx(kept["score"], rel=1e-4)


def test_candidates_that_the_first_images_rule_out_have_no_score(net: nn.Module) -> None:
    _, select = loaders(96)
    attack = upi.UPIPCA(net, eps=1.0)
    selection = Selection(attack.classifier, MapChange(attack.map, attack.change), select)
    candidates = attack.ball.boundary((40, *SHAPE), torch.Generator().manual_seed(0))
    ranked, every = selection.ranked(candidates), selection.scores(candidates)
    kept = ~ranked.isnan()
    assert int(kept.sum()) == 10  # a quarter
    torch.testing.assert_close(ranked[kept], every[kept])
    first = selection._mean(candidates, selection._early()[0])
    assert first[kept].min() >= first[~kept].max()


def test_a_vector_weaker_than_noise_is_flagged_in_file_and_evaluation(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, select = loaders()
    monkeypatch.setattr(Selection, "noise", lambda *_: 99.0)
    weak = upi.UPIPCA(net, eps=1.0, refinements=0).fit(fit, select=select)
    assert weak.provenance["flags"][0]["code"] == "weaker-than-noise-on-select"
    weak.save(tmp_path / "weak.safetensors")
    again = upi.Perturbation.load(tmp_path / "weak.safetensors")
    unlabelled = [x for x, _ in select]
    flags = upi.evaluate(net, {"mine": again}, unlabelled, controls=False).flags
    found = [flag for flag in flags if flag.code == "weaker-than-noise-on-select"]
    assert len(found) == 1
    assert found[0].message.startswith("mine: On the select images")


def test_no_flag_where_it_beats_noise(net: nn.Module) -> None:
    fit, select = loaders()
    found = upi.UPIPCA(net, eps=1.0).fit(fit, select=select).provenance
    assert found["flags"] == []
    assert max(s["score"] for s in found["search"]) > found["select_noise"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_price": -1.0}, "prediction_price must be at least 0"),
        ({"refinements": -1}, "refinements at least 0"),
        ({"row_scale": "long"}, "known: auto, none, unit"),
        ({"rows": "curvature", "refinements": 1}, "refinements must be 0"),
        ({"rows": "curvature", "prediction_price": 0.5}, "no rows to price"),
    ],
)
def test_options_out_of_range(net: nn.Module, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        upi.UPIPCA(net, eps=1, **options)  # type: ignore[arg-type]


def test_a_subspace_is_orthonormal_and_starts_with_the_singular_vector(net: nn.Module) -> None:
    fit, select = loaders()
    attack = upi.UPIPCA(net, eps=1.0, components=1, refinements=0, surrogate=20.0)
    span = attack.subspace(fit, 6)
    rows = span.basis.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(6), atol=1e-5, rtol=0)
    assert list(span.values) == sorted(span.values, reverse=True)
    single = attack.fit(fit, select=select)
    assert span.first(1).share(single.delta) == pytest.approx(1.0, abs=1e-4)


def test_random_vectors_of_a_subspace_lie_in_it_on_the_sphere(net: nn.Module) -> None:
    span = upi.UPIPCA(net, eps=1.0).subspace(loaders()[0], 4)
    draws = [span.random(0.7, seed=3, draw=draw) for draw in range(3)]
    for drawn in draws:
        assert float(drawn.delta.norm()) == pytest.approx(0.7, rel=1e-5)
        assert span.share(drawn.delta) == pytest.approx(1.0, abs=1e-5)
    assert not torch.equal(draws[0].delta, draws[1].delta)


def test_upi_grad_stays_inside_a_subspace(net: nn.Module) -> None:
    fit, _ = loaders()
    span = upi.UPIPCA(net, eps=1.0).subspace(fit, 5)
    held = upi.UPIGrad(net, eps=1.0, steps=6, subspace=span).fit(fit)
    free = upi.UPIGrad(net, eps=1.0, steps=6).fit(fit)
    assert span.share(held.delta) == pytest.approx(1.0, abs=1e-4)
    assert span.share(free.delta) < 0.9
    assert held.provenance["subspace"] == "5 directions"
    with pytest.raises(ConfigError, match="norm='l2'"):
        upi.UPIGrad(net, eps=0.1, norm="linf", subspace=span)


def test_subspaces_survive_their_file_and_damaged_ones_are_refused(net: nn.Module, tmp_path: Path) -> None:
    span = upi.UPIPCA(net, eps=1.0).subspace(loaders()[0], 3)
    path = span.save(tmp_path / "span.safetensors")
    again = Subspace.load(path)
    torch.testing.assert_close(again.basis, span.basis, rtol=0, atol=0)
    assert again.values == span.values
    assert again.provenance == span.provenance
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="truncated"):
        Subspace.load(path)
    upi.RandomPerturbation(net, eps=1.0).pattern(SHAPE).save(path)
    with pytest.raises(ArtifactError, match="expected format 'upi-subspace'"):
        Subspace.load(path)
    with pytest.raises(ArtifactError, match="not orthonormal"):
        Subspace(2 * span.basis, span.values)
    with pytest.raises(ArtifactError, match="3 directions with 1 values"):
        Subspace(span.basis, span.values[:1])


@pytest.mark.parametrize("k", [0, 65, 1000])
def test_a_subspace_of_impossible_size(net: nn.Module, k: int) -> None:
    with pytest.raises(ConfigError, match="k must be between 1 and the 64 numbers of an image"):
        upi.UPIPCA(net, eps=1.0).subspace(loaders()[0], k)


def test_a_subspace_needs_rows_that_span_it(net: nn.Module) -> None:
    fit = [images(3)]
    with pytest.raises(ConfigError, match="the rows span 6 directions"):
        upi.UPIPCA(net, eps=1.0, draws=2).subspace(fit, 20)
