"""What every attack promises, one row an attack: a new file in ``upi.attacks`` is tested by being there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import upi
from tests.conftest import Batches
from upi.attacks import ATTACKS
from upi.attacks.registry import fitted
from upi.core.errors import ConfigError, DataError
from upi.core.rows import ROWS
from upi.experiments.fitting import Spec, attack_of

pytestmark = pytest.mark.slow

BALLS = [("l2", 0.5), ("linf", 0.05)]


def _fit(name: str, net: nn.Module, loader: Batches, *, seed: int = 0, **options: object) -> upi.Perturbation:
    spec = Spec("x", steps=4, **{"eps": 0.5, **options})  # type: ignore[arg-type]
    found = attack_of(name, upi.Classifier(net), spec, seed).fit(loader, select=loader)
    assert isinstance(found, upi.Perturbation)
    return found


@pytest.mark.parametrize("name", fitted())
@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_the_pattern_fills_its_ball_and_is_the_same_again(
    name: str, norm: str, eps: float, relu_net: nn.Module, loader: Batches
) -> None:
    first, again = (_fit(name, relu_net, loader, norm=norm, eps=eps) for _ in range(2))
    assert first.delta.shape == (1, 8, 8)
    assert first.ball.contains(first.delta[None])
    assert float(first.ball.size(first.delta[None])) > 0.5 * eps
    assert torch.equal(first.delta, again.delta)
    assert first.provenance == again.provenance


@pytest.mark.parametrize("name", fitted())
def test_what_made_it_is_kept_with_it(
    name: str, relu_net: nn.Module, loader: Batches, tmp_path: Path
) -> None:
    made = _fit(name, relu_net, loader, preset="paper")
    kept = upi.Perturbation.load(made.save(tmp_path / "x.safetensors"))
    assert torch.equal(kept.delta, made.delta)
    assert kept.provenance == json.loads(json.dumps(made.provenance))
    assert kept.provenance["method"] == ATTACKS[name].__name__
    assert kept.provenance["preset"] == "paper"
    assert kept.provenance["model"] == upi.Classifier(relu_net).fingerprint()


@pytest.mark.parametrize("name", fitted())
def test_images_are_checked_at_the_door(name: str, relu_net: nn.Module, loader: Batches) -> None:
    with pytest.raises(DataError, match=r"expected values in \[0, 1\]"):
        _fit(name, relu_net, [(255 * x, y) for x, y in loader])
    with pytest.raises(DataError, match="no images"):
        _fit(name, relu_net, [])


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_has_a_row_and_shares_the_constructor_s_first_words(
    name: str, relu_net: nn.Module
) -> None:
    assert ROWS[name].title == ATTACKS.entry(name).title
    attack = ATTACKS[name](relu_net, saliency="smoothgrad", dissimilarity="cosine", norm="linf", eps="8/255")
    assert attack.ball.eps == pytest.approx(8 / 255)
    for wrong in ({"saliency": "magic"}, {"dissimilarity": "magic"}, {"norm": "l7"}, {"preset": "magic"}):
        with pytest.raises(ConfigError, match=r"unknown .*'(magic|l7)'"):
            ATTACKS[name](relu_net, **{"eps": 1.0, **wrong})  # type: ignore[arg-type]


def test_attacks_without_a_fit_are_no_methods(relu_net: nn.Module) -> None:
    with pytest.raises(ConfigError, match="unknown method 'per-image'"):
        attack_of("per-image", upi.Classifier(relu_net), Spec("x"), 0)
    with pytest.raises(ConfigError, match="unknown attack 'magic'"):
        attack_of("magic", upi.Classifier(relu_net), Spec("x"), 0)
