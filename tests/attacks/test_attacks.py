"""One contract for all attacks, a row each; bad input is refused with a clear word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upi
from tests.conftest import Batches, convolutional, images
from upi.attacks.base import Attack
from upi.attacks.support.ascent import Rule
from upi.attacks.support.objective import MapChange
from upi.attacks.support.universal import MinibatchObjective
from upi.core.errors import ConfigError, DataError, ModelError, NonFiniteError, ZeroGradientError
from upi.data.batches import EndlessBatches
from upi.network.surrogate import Surrogate
from upi.perturbation.pattern import Perturbation

pytestmark = pytest.mark.slow

FITTED: dict[str, Callable[..., Attack]] = {
    "upi-grad": partial(upi.UPIGrad, steps=6),
    "upi-grad priced, clipped": partial(upi.UPIGrad, steps=6, prediction_price=0.5, clip=True),
    "upi-pca": upi.UPIPCA,
    "upi-pca sketch": partial(upi.UPIPCA, solver="sketch", rank=8),
    "upi-pca power": partial(upi.UPIPCA, solver="power", steps=6),
    "upi-pca stein": partial(upi.UPIPCA, rows="stein", draws=4),
    "upi-pca curvature": partial(upi.UPIPCA, rows="curvature", solver="sketch", rank=4),
    "class-uap": partial(upi.ClassUAP, steps=6),
    "random": upi.RandomPerturbation,
}
UPI = [name for name in FITTED if name.startswith("upi")]


def _fit(attack: Attack, loader: Any, **options: Any) -> Perturbation:
    found = attack.fit(loader, **options)
    assert isinstance(found, Perturbation)
    return found


@pytest.mark.parametrize("preset", ["protocol", "paper"])
@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.5), ("linf", "8/255")])
@pytest.mark.parametrize("name", FITTED)
def test_contract(
    name: str, norm: str, eps: float | str, preset: str, relu_net: nn.Module, loader: Batches
) -> None:
    """A float32 (C, H, W) pattern on the boundary of its ball; same seed, same bytes."""
    before = {key: value.clone() for key, value in relu_net.state_dict().items()}
    attack = FITTED[name](relu_net, norm=norm, eps=eps, seed=3, preset=preset)
    first, second = _fit(attack, loader), _fit(attack, loader)
    assert first.delta.shape == (1, 8, 8)
    assert first.delta.dtype == torch.float32
    assert torch.equal(first.delta, second.delta)
    assert first.ball == attack.ball
    assert float(first.ball.size(first.delta[None])) == pytest.approx(first.ball.eps, rel=0.05)
    assert first.provenance["seed"] == 3
    assert first.provenance["model"] == upi.Classifier(relu_net).fingerprint()
    assert all(torch.equal(value, before[key]) for key, value in relu_net.state_dict().items())
    assert relu_net.training
    assert all(parameter.requires_grad for parameter in relu_net.parameters())


@pytest.mark.parametrize(
    "name", [n for n in FITTED if n not in ("upi-pca", "upi-pca sketch", "upi-pca curvature")]
)
def test_another_seed_gives_another_pattern(name: str, relu_net: nn.Module, loader: Batches) -> None:
    one, two = (_fit(FITTED[name](relu_net, eps=0.5, seed=seed), loader) for seed in (0, 1))
    assert not torch.equal(one.delta, two.delta)


@pytest.mark.parametrize("name", FITTED)
def test_global_random_state_is_neither_used_nor_changed(
    name: str, relu_net: nn.Module, loader: Batches
) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = _fit(FITTED[name](relu_net, eps=0.5), loader)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(_fit(FITTED[name](relu_net, eps=0.5), loader).delta, one.delta)


@pytest.mark.parametrize("form", ["tensors", "one-shot", "data loader"])
def test_loaders_of_every_kind_give_the_same_result(form: str, relu_net: nn.Module, loader: Batches) -> None:
    other: Any = {
        "tensors": [x for x, _ in loader],
        "one-shot": iter(loader),
        "data loader": torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.cat([x for x, _ in loader])), batch_size=16
        ),
    }[form]
    for name in ("upi-grad", "upi-pca"):
        expected = _fit(FITTED[name](relu_net, eps=0.5), loader)
        source = iter(loader) if form == "one-shot" else other
        torch.testing.assert_close(_fit(FITTED[name](relu_net, eps=0.5), source).delta, expected.delta)


def test_an_endless_stream_is_read_only_as_far_as_needed(relu_net: nn.Module) -> None:
    def stream() -> Iterator[Tensor]:
        seed = 0
        while True:
            yield images(4, seed=seed)
            seed += 1

    assert _fit(upi.UPIGrad(relu_net, eps=0.5, steps=5), stream()).provenance["steps"] == 5


@pytest.mark.parametrize("saliency", ["gradient", "integrated_gradients", "smoothgrad", "input_x_gradient"])
@pytest.mark.parametrize("name", ["upi-grad", "upi-pca"])
def test_universal_attacks_beat_noise_on_the_network_itself(
    name: str, saliency: str, relu_net: nn.Module, loader: Batches
) -> None:
    options: dict[str, Any] = {"saliency": saliency, "eps": 1.0}
    found = _fit(FITTED[name](relu_net, **options, **({"steps": 60} if name == "upi-grad" else {})), loader)
    table = upi.evaluate(relu_net, {"found": found}, loader, saliency=saliency, draws=8)
    assert table.rows["found"].excess_over_noise > 0.05


def test_a_price_keeps_predictions() -> None:
    """Darkening every pixel raises this map change most, and flips every prediction on the way."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0], [-1.0]]) / 64)
        net[1].bias.copy_(torch.tensor([-0.1, 0.1]))
    loader = [images(16)]

    def changed(price: float) -> float:
        attack = upi.UPIGrad(
            net,
            saliency=lambda model, x, target: x[:, 0],
            dissimilarity=lambda clean, perturbed: (clean - perturbed).mean((1, 2)),
            eps=8.0,
            prediction_price=price,
            steps=40,
        )
        table = upi.evaluate(net, {"x": _fit(attack, loader)}, loader, controls=False)
        return table.rows["x"].prediction_changed

    assert changed(0.0) == 1.0
    assert changed(10.0) == 0.0


def test_class_uap_changes_more_predictions_than_noise(relu_net: nn.Module, loader: Batches) -> None:
    rows = {
        "class-uap": _fit(upi.ClassUAP(relu_net, eps=2.0, steps=40), loader),
        "random": _fit(upi.RandomPerturbation(relu_net, eps=2.0), loader),
    }
    table = upi.evaluate(relu_net, rows, loader, controls=False)
    assert table.rows["class-uap"].prediction_changed > table.rows["random"].prediction_changed


def test_the_per_image_attack_beats_the_universal_one_within_its_budget(
    relu_net: nn.Module, loader: Batches
) -> None:
    for norm, eps in (("l2", 0.5), ("linf", 0.05)):
        attack = upi.PerImageAttack(relu_net, norm=norm, eps=eps)
        assert attack.fit(loader) is attack
        x, target = loader[0]
        moved = attack(x, target)
        assert attack.ball.contains(moved - x)
        assert moved.min() >= 0
        assert moved.max() <= 1
        universal = _fit(upi.UPIGrad(relu_net, norm=norm, eps=eps, steps=40), loader)
        table = upi.evaluate(relu_net, {"upi-grad": universal}, loader)
        assert table.rows["per-image"].dissimilarity.mean > table.rows["upi-grad"].dissimilarity.mean
        assert not any(flag.code == "universal-beats-per-image" for flag in table.flags)


def test_the_paper_preset_uses_only_correctly_classified_images(relu_net: nn.Module, loader: Batches) -> None:
    wrong = [(x, (label + 1) % 4) for x, label in loader]
    for name in ("upi-grad", "upi-pca"):
        with pytest.raises(DataError, match="none of the 48 images is classified correctly"):
            FITTED[name](relu_net, eps=0.5, preset="paper").fit(wrong)


@pytest.mark.parametrize("eps", [0.5, 12.0])
@pytest.mark.parametrize("name", [n for n in UPI if n != "upi-pca stein"])
def test_relu_networks_without_a_surrogate_are_named_not_answered_with_noise(
    name: str, eps: float, relu_net: nn.Module, loader: Batches
) -> None:
    """Also where the radius is so large that the price on predictions has a gradient of its own."""
    with pytest.raises(ZeroGradientError, match=r"piecewise-linear \(ReLU\) network with a logit map"):
        FITTED[name](relu_net, eps=eps, surrogate=None).fit(loader)


def test_a_linear_model_has_no_attack_gradient() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    for attack in (upi.UPIGrad(linear, eps=0.5), upi.UPIPCA(linear, eps=0.5)):
        with pytest.raises(ZeroGradientError, match="linear model does not move"):
            attack.fit([images(4)])
    with pytest.raises(ZeroGradientError):
        upi.PerImageAttack(linear, eps=0.5)(images(4), torch.zeros(4, dtype=torch.long))


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.rand(x.shape[0], 3)


def test_a_model_that_is_not_deterministic_is_refused() -> None:
    for attack in (upi.UPIGrad(Noisy(), eps=0.5), upi.UPIPCA(Noisy(), eps=0.5)):
        with pytest.raises(ModelError, match="not deterministic in eval mode: two passes over the same 4"):
            attack.fit([images(4)])


def test_dropout_and_batch_norm_in_train_mode_are_no_trouble(loader: Batches) -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(144, 4),
    ).train()
    assert _fit(upi.UPIGrad(net, eps=0.5, steps=4), [x for x, _ in loader]).delta.abs().max() > 0
    assert net[1].num_batches_tracked == 0


def test_a_step_that_turns_non_finite_is_caught_and_named(relu_net: nn.Module, loader: Batches) -> None:
    calls = []

    def poisoned(clean: Tensor, perturbed: Tensor) -> Tensor:
        calls.append(1)
        value = (clean - perturbed).square().sum((1, 2))
        return value * float("nan") if len(calls) == 5 else value

    attack = upi.UPIGrad(upi.Classifier(relu_net, fast=False), eps=0.5, dissimilarity=poisoned)
    with pytest.raises(NonFiniteError, match="step 4: batch 1 gave NaN or infinity in samples"):
        attack.fit(loader)
    assert len(calls) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps must be finite and above 0"),
        ({"eps": float("inf")}, "eps must be finite"),
        ({"norm": "l1"}, "unknown norm 'l1'; known: l2, linf"),
        ({"saliency": "lime"}, "unknown saliency map 'lime'; known: attention_rollout"),
        ({"dissimilarity": "mse"}, "unknown dissimilarity 'mse'; known: cosine"),
        ({"preset": "ours"}, "unknown preset 'ours'; known: paper, protocol"),
    ],
)
@pytest.mark.parametrize(
    "attack", [upi.UPIGrad, upi.UPIPCA, upi.PerImageAttack, upi.RandomPerturbation, upi.ClassUAP]
)
def test_bad_options_are_refused_at_the_door(
    attack: type[Attack], options: dict[str, Any], message: str, relu_net: nn.Module
) -> None:
    with pytest.raises(ConfigError, match=message):
        attack(relu_net, **{"eps": 0.5, **options})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda net: upi.UPIPCA(net, eps=1, solver="svd"),
            "unknown solver 'svd'; known: gram, power, sketch",
        ),
        (lambda net: upi.UPIPCA(net, eps=1, rows="jvp"), "unknown rows 'jvp'; known: curvature"),
        (lambda net: upi.UPIPCA(net, eps=1, sigma=0.0), "sigma must be finite and at least 1e-12"),
        (lambda net: upi.UPIPCA(net, eps=1, rank=0), "must be at least 1"),
        (lambda net: upi.UPIPCA(net, eps=1, solver="power", components=2), "finds one component"),
        (lambda net: upi.UPIGrad(net, eps=1, sigma=-1.0), "sigma must be finite and at least 0"),
        (lambda net: upi.UPIGrad(net, eps=1, steps=0), "expected steps >= 1"),
        (lambda net: upi.UPIGrad(net, eps=1, prediction_price=-1.0), "prediction_price must be at least 0"),
        (lambda net: upi.UPIGrad(net, eps=1, surrogate="relu"), "surrogate must be a number, None or 'auto'"),
        (lambda net: upi.PerImageAttack(net, eps=1, checks=0), "checks must be at least 1"),
    ],
)
def test_bad_hyperparameters_are_refused(
    build: Callable[[nn.Module], Attack], message: str, relu_net: nn.Module
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(relu_net)


def test_progress_reaches_the_end(relu_net: nn.Module, loader: Batches) -> None:
    seen: list[tuple[int, int]] = []
    upi.UPIGrad(relu_net, eps=0.5, steps=4).fit(
        loader, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    seen.clear()
    upi.UPIPCA(relu_net, eps=0.5).fit(loader, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


def test_the_spectrum_is_part_of_the_result(relu_net: nn.Module, loader: Batches) -> None:
    spectrum = _fit(upi.UPIPCA(relu_net, eps=0.5), loader).provenance["spectrum"]
    assert spectrum == sorted(spectrum, reverse=True)
    assert len(spectrum) == 20


def test_step_sizes_decay_to_zero_along_a_cosine() -> None:
    rule = Rule(10, 2.0, 0.0)
    sizes = [rule.size(step) for step in range(11)]
    assert sizes[0] == 2.0
    assert sizes[5] == pytest.approx(1.0)
    assert sizes[10] == pytest.approx(0.0)


@pytest.mark.parametrize(("checks", "maps"), [(1, 1), (3, 3)])
def test_the_per_image_attack_looks_at_as_many_iterates_as_asked(
    checks: int, maps: int, relu_net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    measured = MapChange.measured

    def counted(self: MapChange, model: Any, batch: Any, perturbed: Tensor) -> Tensor:
        seen.append(perturbed)
        return measured(self, model, batch, perturbed)

    monkeypatch.setattr(MapChange, "measured", counted)
    x = images(4)
    model = upi.Classifier(relu_net)
    attack = upi.PerImageAttack(model, eps=0.5, steps=8, checks=checks)
    moved = attack(x, model.predict(x))
    assert len(seen) == maps
    assert attack.record()["step_size"] is None
    assert any(torch.equal(moved[0], each[0]) for each in seen)


def test_the_per_image_attack_climbs_on_sharper_and_sharper_surrogates(
    relu_net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float | None] = []
    through = Surrogate.__call__

    def watched(self: Surrogate, x: Tensor) -> Tensor:
        seen.append(self.beta)
        return through(self, x)

    x, model = images(4), upi.Classifier(relu_net, fast=False)
    target = model.predict(x)
    monkeypatch.setattr(Surrogate, "__call__", watched)
    upi.PerImageAttack(model, eps=0.5, steps=7)(x, target)
    assert seen == pytest.approx([14.0] * 3 + [25.0] * 2 + [45.0] * 2)
    seen.clear()
    upi.PerImageAttack(model, eps=0.5, steps=3, surrogate=5.0)(x, target)
    assert seen == [5.0] * 3


def test_colour_networks_with_functional_relu_and_max_pool_work() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6 * 16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))

    x = images(12, shape=(3, 8, 8))
    model = upi.Classifier(Functional(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    found = _fit(upi.UPIGrad(model, eps=1.0, steps=30), [x])
    table = upi.evaluate(model, {"found": found}, [(x, model.predict(x))])
    assert table.rows["found"].excess_over_noise > 0
    assert convolutional(nn.ReLU, channels=3)(x).shape == (12, 4)


def test_box_aware_gradients_are_zero_where_clipping_stops_the_perturbation() -> None:
    x = images(4)
    x[:, :, 0] = 0.0
    model = upi.Classifier(convolutional(nn.Softplus))
    objective = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2)
    delta = torch.full((1, 1, 8, 8), -0.05)

    def gradient(clip: bool) -> Tensor:
        plain = model.surrogate(None)
        stream = EndlessBatches(model, partial(objective.clean, plain), [x])
        return MinibatchObjective(plain, objective, stream, 0.0, 0, clip)(delta, 0).gradient

    assert (gradient(True)[:, :, 0] == 0).all()
    assert (gradient(True)[:, :, 1:] != 0).all()
    assert (gradient(False)[:, :, 0] != 0).all()
