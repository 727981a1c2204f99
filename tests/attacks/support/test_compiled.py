"""The compiled step is the plain step."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import Batches, images
from upi.attacks.base import IterativeAttack
from upi.attacks.support.compiled import CAPTURED, CompiledGradient, Step, record
from upi.attacks.support.gradients import attack_gradient
from upi.attacks.support.objective import MapChange, Objective, PredictionChange, explained_batch
from upi.core.errors import ConfigError, FallbackWarning
from upi.data.batches import Batch
from upi.experiments.fitting import Spec, attack_of
from upi.network.surrogate import Surrogate
from upi.saliency import Gradient, IntegratedGradients, SmoothGrad

QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
pytestmark = [pytest.mark.slow, QUIET]
L2 = upi.dissimilarity.relative_l2
OBJECTIVES: dict[str, Objective] = {
    "gradient": MapChange(Gradient(), L2),
    "softmax": MapChange(Gradient(score="softmax"), L2),
    "priced": MapChange(Gradient(), L2, prediction_price=0.5),
    "integrated": MapChange(IntegratedGradients(steps=3), L2),
    "smoothgrad": MapChange(SmoothGrad(samples=2), upi.dissimilarity.cosine),
    "prediction": PredictionChange(),
}


def _problem(
    net: nn.Module, objective: Objective, *, fast: bool | None = None
) -> tuple[Surrogate, Batch, Tensor]:
    model, x = upi.Classifier(net), images(5)
    shift = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    batch = explained_batch(objective, model, x, model.predict(x))
    return model.surrogate(5.0, fast=fast), batch, x + shift


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("fast", [True, False])
def test_the_recorded_step_is_the_step_on_other_images_too(
    name: str, fast: bool, relu_net: nn.Module
) -> None:
    objective = OBJECTIVES[name]
    model, batch, point = _problem(relu_net, objective, fast=fast)
    with model.frozen():
        step = CompiledGradient(backend="eager")
        step(model, objective, batch, point)
        assert step.graph is not None
        other = Batch(batch.x, batch.target.flip(0), batch.clean.flip(0), 0, batch.margin, batch.scale)
        found, expected = (
            step(model, objective, other, point - 0.2),
            attack_gradient(model, objective, other, point - 0.2),
        )
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-6)


def test_the_recorded_step_looks_at_no_number(relu_net: nn.Module) -> None:
    """Nothing in it stalls an accelerator: no value is read back."""
    model, batch, point = _problem(relu_net, OBJECTIVES["priced"])
    with model.frozen():
        graph = record(model, OBJECTIVES["priced"], batch, point)
    assert "_local_scalar_dense" not in str(getattr(graph, "code", ""))
    assert "conv" in str(getattr(graph, "code", ""))


def test_batches_of_another_shape_take_the_plain_step(relu_net: nn.Module) -> None:
    objective = OBJECTIVES["gradient"]
    model, batch, point = _problem(relu_net, objective)
    with model.frozen():
        step = CompiledGradient(backend="eager")
        step(model, objective, batch, point)
        keep = torch.tensor([True, False, True, False, False])
        found = step(model, objective, batch.take(keep), point[keep])
        expected = attack_gradient(model, objective, batch.take(keep), point[keep])
    torch.testing.assert_close(found.gradient, expected.gradient)


def test_batches_that_carry_other_tensors_take_the_plain_step(relu_net: nn.Module) -> None:
    """A whole batch may have the shape of a piece, but not its scale."""
    objective = OBJECTIVES["priced"]
    model, batch, point = _problem(relu_net, objective)
    piece = replace(batch, scale=torch.tensor(2.0))
    with model.frozen():
        step = CompiledGradient(backend="eager")
        step(model, objective, piece, point)
        assert step.graph is not None
        found, expected = (
            step(model, objective, batch, point),
            attack_gradient(model, objective, batch, point),
        )
    torch.testing.assert_close(found.values, expected.values)


def test_several_calls_compile_once_unless_the_network_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A per-image attack is called batch by batch; weights and each stage's sharpness are constants."""
    compiled, made = importlib.import_module("upi.attacks.support.compiled"), []

    def counted(*given: object) -> object:
        made.append(1)
        return record(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(compiled, "record", counted)
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    net = nn.Sequential(*layers).eval()
    attack = upi.PerImageAttack(net, eps=1.0, steps=6, compile=True)
    attack.__dict__["_compiled"] = {stage: CompiledGradient(backend="eager") for stage in range(3)}
    plain = upi.PerImageAttack(net, eps=1.0, steps=6)
    target = upi.Classifier(net).predict(images(5))
    for seed, factor, expected in ((0, 1.0, 3), (1, 1.0, 3), (1, -0.5, 6)):
        x = images(5, seed=seed)
        layers[0].load_state_dict({k: factor * v for k, v in layers[0].state_dict().items()})
        torch.testing.assert_close(attack(x, target), plain(x, target), rtol=1e-4, atol=1e-5)
        assert len(made) == expected


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (lambda graph, inputs: 1 / 0, "could not be compiled"),
        (lambda graph, inputs: lambda *a: tuple(-v for v in graph(*a)), "differs from the plain one"),
    ],
)
def test_a_compiler_that_fails_or_errs_is_left_with_one_warning(
    backend: Callable[..., object], message: str, relu_net: nn.Module
) -> None:
    objective = OBJECTIVES["gradient"]
    model, batch, point = _problem(relu_net, objective)
    with model.frozen():
        compiled = CompiledGradient(backend=backend)
        with pytest.warns(FallbackWarning, match=message) as caught:
            first = compiled(model, objective, batch, point)
        again = compiled(model, objective, batch, point)
    assert len([w for w in caught if w.category is FallbackWarning]) == 1
    expected = attack_gradient(model, objective, batch, point)
    for step in (first, again):
        torch.testing.assert_close(step.values, expected.values)
        torch.testing.assert_close(step.gradient, expected.gradient)


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for the CPU needs a C++ compiler")
def test_compiled_and_plain_fits_agree(relu_net: nn.Module, loader: Batches) -> None:
    found = [
        upi.UPIGrad(relu_net, eps=1.0, steps=5, prediction_price=0.5, compile=how).fit(loader).delta
        for how in (True, False)
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_captured_step_is_the_step_on_other_images_too(name: str, relu_net: nn.Module) -> None:
    objective, net = OBJECTIVES[name], deepcopy(relu_net).cuda()
    model, x = upi.Classifier(net), images(5).cuda()
    batch = explained_batch(objective, model, x, model.predict(x))
    surrogate, point = model.surrogate(5.0), x + 0.1
    with surrogate.frozen():
        step = CompiledGradient(CAPTURED)
        step(surrogate, objective, batch, point)
        assert step.graph is not None
        other = Batch(batch.x, batch.target.flip(0), batch.clean.flip(0), 0, batch.margin, batch.scale)
        found = [step(surrogate, objective, other, point - shift) for shift in (0.2, 0.3)]
        for shift, each in zip((0.2, 0.3), found, strict=True):
            expected = attack_gradient(surrogate, objective, other, point - shift)
            torch.testing.assert_close(each.values, expected.values)
            torch.testing.assert_close(each.gradient, expected.gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_captured_and_plain_fits_agree_and_the_next_fit_has_its_own_graph(loader: Batches) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    net = nn.Sequential(*layers).eval().cuda()
    how = [
        upi.UPIGrad(net, eps=1.0, steps=5, prediction_price=0.5, compile=mode) for mode in (CAPTURED, False)
    ]
    for factor in (1.0, -0.5):
        layers[0].load_state_dict({k: factor * v for k, v in layers[0].state_dict().items()})
        torch.testing.assert_close(*[each.fit(loader).delta for each in how], rtol=1e-4, atol=1e-5)


def test_a_captured_step_copies_what_it_is_given_and_keeps_nothing_of_the_fit_before(
    monkeypatch: pytest.MonkeyPatch, relu_net: nn.Module
) -> None:
    """Without a GPU: a step that computes in place stands for the graph."""
    module, made = importlib.import_module("upi.attacks.support.compiled"), []

    def stand_in(step: Step, tensors: dict[str, Tensor]) -> Step:
        held = {name: value.clone() for name, value in tensors.items()}
        found = step(held)
        made.append(1)

        def again(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            for name, value in given.items():
                held[name].copy_(value)
            for there, value in zip(found, step(held), strict=True):
                there.copy_(value)
            return found

        return again

    monkeypatch.setattr(module, "captured", stand_in)
    objective = OBJECTIVES["priced"]
    model, batch, point = _problem(relu_net, objective)
    step = CompiledGradient(CAPTURED)
    with model.frozen():
        step(model, objective, batch, point)
        found = [step(model, objective, batch, point - shift) for shift in (0.2, 0.3)]
        for shift, each in zip((0.2, 0.3), found, strict=True):
            torch.testing.assert_close(
                each.gradient, attack_gradient(model, objective, batch, point - shift).gradient
            )
        assert len(made) == 1
        step.again()(model, objective, batch, point)
    assert len(made) == 2


def test_a_capture_that_fails_without_a_word_is_named_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, relu_net: nn.Module
) -> None:
    def fail(step: Step, tensors: dict[str, Tensor]) -> Step:
        raise AssertionError

    monkeypatch.setattr(importlib.import_module("upi.attacks.support.compiled"), "captured", fail)
    model, batch, point = _problem(relu_net, OBJECTIVES["gradient"])
    with model.frozen(), pytest.warns(FallbackWarning, match="could not be compiled: AssertionError"):
        CompiledGradient(CAPTURED)(model, OBJECTIVES["gradient"], batch, point)


def test_a_captured_step_needs_a_gpu_and_says_so(relu_net: nn.Module, loader: Batches) -> None:
    attack = upi.UPIGrad(relu_net, eps=1.0, steps=2, compile=CAPTURED)
    with pytest.warns(FallbackWarning, match="CUDA graphs need the network on a CUDA device, it is on cpu"):
        found = attack.fit(loader)
    torch.testing.assert_close(found.delta, upi.UPIGrad(relu_net, eps=1.0, steps=2).fit(loader).delta)


def test_by_itself_a_step_is_captured_on_a_gpu_alone_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, relu_net: nn.Module, loader: Batches
) -> None:
    module = importlib.import_module("upi.attacks.support.compiled")
    attack = upi.UPIGrad(relu_net, eps=1.0, steps=2)
    assert attack.compile == "auto"
    called = []
    monkeypatch.setattr(module, "captured", lambda *given: called.append(given))
    assert attack.gradient_function() is not attack.gradient_function()  # each fit has its own graph
    here = attack.fit(loader).delta
    assert called == []
    objective = OBJECTIVES["gradient"]
    model, batch, point = _problem(relu_net, objective)

    class Elsewhere(CompiledGradient):
        """Whose batches say that they are on a GPU."""

        def __call__(self, *given: Any) -> Any:
            return self._check(*given)

    with model.frozen():
        found = Elsewhere("auto")(model, objective, batch, point)  # the stand-in fails: no warning
        assert len(called) == 1
        torch.testing.assert_close(found.gradient, attack_gradient(model, objective, batch, point).gradient)
    torch.testing.assert_close(here, upi.UPIGrad(relu_net, eps=1.0, steps=2, compile=False).fit(loader).delta)


def test_an_unknown_mode_is_refused(relu_net: nn.Module) -> None:
    with pytest.raises(ConfigError, match="unknown compile mode 'fast'; known: auto, cuda-graph, default"):
        upi.UPIGrad(relu_net, eps=1.0, compile="fast")


@pytest.mark.parametrize("method", ["upi-grad", "class-uap"])
def test_a_study_hands_the_wish_to_compile_on(method: str, relu_net: nn.Module) -> None:
    model = upi.Classifier(relu_net)
    for wish in (True, False):
        attack = attack_of(method, model, Spec("x", compile=wish), 0)
        assert isinstance(attack, IterativeAttack)
        assert attack.compile is wish
