"""The fast path is taken where it is right, and left with one warning where it is not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import upi
from tests.conftest import Batches, images
from upi.attacks.support.gradient_check import TOLERANCE, _Probe, difference, fast_derivatives_agree
from upi.attacks.support.gradients import NODES, Gradients, _parts, gradients
from upi.attacks.support.objective import MapChange, explained_batch
from upi.core.errors import FallbackWarning
from upi.data.batches import EndlessBatches, prepare
from upi.data.cache import ImageCache
from upi.data.images import samples
from upi.saliency import GradCAM, Gradient, IntegratedGradients, SmoothGrad


def _objective(saliency: upi.core.types.SaliencyMap, price: float = 0.0) -> MapChange:
    return MapChange(saliency, upi.dissimilarity.relative_l2, price)


def _one_by_one(model: upi.Classifier, x: Tensor, target: Tensor) -> Tensor:
    """A gradient map by torch.func, whose transforms the kernels do not support."""

    def own(point: Tensor, label: Tensor) -> Tensor:
        return model(point[None])[0].gather(0, label)

    slopes: Tensor = torch.func.vmap(torch.func.grad(own))(x, target)
    return slopes.abs().sum(1)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.norm.load_state_dict({**self.norm.state_dict(), "running_mean": torch.arange(4.0)})

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(x))).square().mean((2, 3)))


class Digits(Normed):
    """A network that loses digits: its batch norm takes away a mean that hides them, unless it is folded."""

    def __init__(self, mean: float = 3e5) -> None:
        super().__init__()
        nn.init.constant_(self.conv.bias, mean)  # type: ignore[arg-type]
        self.norm.load_state_dict({**self.norm.state_dict(), "running_mean": torch.full((4,), mean)})


def _probe(objective: MapChange) -> tuple[upi.Classifier, Tensor, _Probe]:
    model, x = upi.Classifier(Digits().eval()), images(4)
    return model, x, _Probe.of(model, objective, x, model.predict(x), 20.0)


def test_digits_that_the_network_loses_are_not_the_kernels_fault() -> None:
    objective = _objective(Gradient())
    model, x, probe = _probe(objective)
    own, quick = (probe.gradient(fast=fast) for fast in (False, True))
    assert difference(own, quick) > TOLERANCE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fast_derivatives_agree(model, objective, x, 20.0)
    exact = probe.exact().gradient(fast=False)
    assert difference(exact, quick) < difference(exact, own)


@pytest.mark.parametrize(
    ("kind", "factor"),
    [
        ("wrong everywhere", 1.02),  # though no further off than autograd's own way, which only rounds
        ("wrong in float32", 0.0),
        ("no room for float64", 1.5),
    ],
)
def test_a_wrong_rule_is_noticed_where_the_network_loses_digits_too(
    kind: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = _Probe.gradient

    def wrong(self: _Probe, *, fast: bool) -> Gradients:
        found, double = right(self, fast=fast), self.moved.dtype == torch.float64
        if double and kind == "no room for float64":
            raise torch.OutOfMemoryError("out of memory")
        spoilt = fast and (kind == "wrong everywhere" or not double)
        return Gradients(found.values, found.gradient * factor) if spoilt else found

    objective = _objective(Gradient())
    model, x, probe = _probe(objective)
    exact = probe.exact().gradient(fast=False)
    own, spoilt = probe.gradient(fast=False), wrong(probe, fast=True)
    near = difference(exact, spoilt) < 2 * difference(exact, own)
    assert near == (kind != "wrong in float32")  # it is the other conditions that notice
    monkeypatch.setattr(_Probe, "gradient", wrong)
    with pytest.warns(FallbackWarning, match="differs from autograd's by"):
        assert not fast_derivatives_agree(model, objective, x, 20.0)


def test_a_network_that_loses_all_digits_accepts_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective, x = upi.Classifier(Digits(1e7).eval()), _objective(Gradient()), images(4)
    probe, right = _Probe.of(model, objective, x, model.predict(x), 20.0), _Probe.gradient
    assert difference(probe.exact().gradient(fast=False), probe.gradient(fast=False)) > 0.5

    def nothing(self: _Probe, *, fast: bool) -> Gradients:
        found = right(self, fast=fast)
        alone = fast and self.moved.dtype == torch.float32
        return Gradients(found.values, 0 * found.gradient) if alone else found

    monkeypatch.setattr(_Probe, "gradient", nothing)
    with pytest.warns(FallbackWarning, match="differs from autograd's by"):
        assert not fast_derivatives_agree(model, objective, x, 20.0)


def test_the_kernels_are_trusted_silently_where_they_agree(relu_net: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fast_derivatives_agree(upi.Classifier(relu_net), _objective(Gradient()), images(4), 20.0)
        assert fast_derivatives_agree(upi.Classifier(Normed().eval()), _objective(GradCAM()), images(4), 20.0)
    assert not fast_derivatives_agree(
        upi.Classifier(relu_net, fast=False), _objective(Gradient()), images(4), 20.0
    )


def test_an_unsupported_operation_falls_back_with_one_warning(relu_net: nn.Module) -> None:
    with pytest.warns(FallbackWarning, match="fast derivatives do not work on this network") as caught:
        assert not fast_derivatives_agree(upi.Classifier(relu_net), _objective(_one_by_one), images(4), 20.0)
    assert len(caught) == 1


def _inside(model: upi.Classifier, x: Tensor, target: Tensor) -> Tensor:
    """A map that shows the convolution's own output, which would carry the batch norm."""
    seen: list[Tensor] = []
    handle = model.net.get_submodule("conv").register_forward_hook(
        lambda module, given, out: seen.append(out.square().sum(1))
    )
    model(x)
    handle.remove()
    return seen[-1]


def test_a_convolution_that_a_map_looks_at_is_not_folded() -> None:
    deltas = [
        upi.UPIGrad(upi.Classifier(Normed().eval(), fast=fast), saliency=_inside, eps=1.0, steps=3)
        .fit([images(8)])
        .delta
        for fast in (True, False)
    ]
    torch.testing.assert_close(*deltas, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_differs_falls_back_with_one_warning() -> None:
    """What may be folded was found for another map than the one that looks inside."""
    model = upi.Classifier(Normed().eval())
    with model.frozen():
        assert fast_derivatives_agree(model, _objective(Gradient()), images(4), 20.0)
        with pytest.warns(FallbackWarning, match="differs from autograd's by") as caught:
            assert not fast_derivatives_agree(model, _objective(_inside), images(4), 20.0)
    assert len(caught) == 1


@pytest.mark.parametrize("attack", [upi.UPIGrad, upi.UPIPCA, upi.ClassUAP])
def test_fast_and_plain_fits_agree(attack: type[upi.UPIGrad], loader: Batches, relu_net: nn.Module) -> None:
    found = [
        attack(upi.Classifier(relu_net.double(), fast=fast), eps=1.0).fit(loader).delta
        for fast in (True, False)
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("saliency", [IntegratedGradients(steps=8), SmoothGrad(samples=8)])
def test_of_large_images_fewer_are_taken_together(saliency: IntegratedGradients) -> None:
    """As many as hold as much as 20 photographs of 224 pixels; a batch that is larger itself is one pass."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 16, stride=16), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    model, x = upi.Classifier(net), images(5, shape=(3, 224, 224))
    objective, seen = _objective(saliency, 0.5), []
    net.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    batch = explained_batch(objective, model, x, model.predict(x))
    assert max(seen) == 20  # four of eight copies of five images
    seen.clear()
    gradients(model, objective, batch, x + 0.03, where="")
    assert max(seen) == 16  # all copies of two images
    seen.clear()
    assert fast_derivatives_agree(model, objective, x, 20.0)
    assert max(seen) == 8  # of one: autograd's own graph of it is as large as that of two


@pytest.mark.parametrize("saliency", [IntegratedGradients(steps=50), SmoothGrad(samples=50)])
def test_maps_of_many_passes_are_taken_in_pieces_with_the_same_gradient(
    smooth_net: nn.Module, saliency: IntegratedGradients
) -> None:
    model, x = upi.Classifier(smooth_net), images(7).double()
    objective, seen = _objective(saliency, 0.5), []
    batch = explained_batch(objective, model, x, model.predict(x))
    pieces = list(_parts(objective, batch, x))
    assert max(len(piece) * saliency.passes for piece, _ in pieces) <= NODES
    assert len(pieces) == 4
    smooth_net.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    found = gradients(model, objective, batch, x + 0.03, where="")
    assert max(seen) <= NODES
    point = (x + 0.03).requires_grad_()
    values = objective.values(model, batch, point)
    (whole,) = torch.autograd.grad(values.sum(), point)
    torch.testing.assert_close(found.values, values.detach())
    torch.testing.assert_close(found.gradient, whole)


def _augmented() -> Iterator[Tensor]:
    for seed in range(3):
        yield images(6, seed=seed)


class Augmented:
    """Other images in every pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.passes += 1
        yield images(6, seed=self.passes)


@pytest.mark.parametrize("kind", ["list", "shuffling", "augmenting"])
def test_every_image_is_explained_once_whatever_the_loader(kind: str, relu_net: nn.Module) -> None:
    x, explained = images(24), []

    def counted(model: upi.Classifier, points: Tensor, target: Tensor) -> Tensor:
        explained.append(len(points))
        return Gradient()(model, points, target)

    model = upi.Classifier(relu_net)
    loaders = {
        "list": list(torch.split(x, 8)),
        "shuffling": DataLoader(TensorDataset(x), batch_size=8, shuffle=True),
        "augmenting": Augmented(),
    }
    stream = iter(EndlessBatches(model, partial(_objective(counted).clean, model), loaders[kind]))
    for _ in range(9):
        batch = next(stream).whole
        expected = Gradient()(model, batch.x, batch.target)
        torch.testing.assert_close(batch.clean, expected)
        assert torch.equal(batch.target, model.predict(batch.x))
    assert sum(explained) == (54 if kind == "augmenting" else 24)


def test_what_does_not_fit_into_memory_is_computed_again(relu_net: nn.Module) -> None:
    x, model = images(8), upi.Classifier(relu_net)
    objective, loader = _objective(Gradient()), [x]
    cache = ImageCache(loader, limit=3 * 8 + 5 * 8 + 64 * 4)
    (sample,) = samples(loader)
    for _ in range(2):
        batch = prepare(model, partial(objective.clean, model), sample, cache)
        assert batch is not None
        torch.testing.assert_close(batch.clean, Gradient()(model, x, batch.target))
    assert {kind for kind, _ in cache.known} == {"class", "clean"}
    assert len(cache.known) == 9


def test_nothing_is_remembered_where_no_image_comes_twice(
    relu_net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    real = ImageCache._keep

    def watched(self: ImageCache, *given: object) -> None:
        real(self, *given)  # type: ignore[arg-type]
        kept.append(len(self.known))

    monkeypatch.setattr(ImageCache, "_keep", watched)
    loader = list(torch.split(images(24), 8))
    upi.UPIGrad(relu_net, eps=1.0, steps=3).fit(loader)
    assert max(kept) == 0
    upi.UPIGrad(relu_net, eps=1.0, steps=4).fit(loader)
    assert max(kept) == 48


def test_one_image_next_to_a_kink_is_not_a_wrong_rule_but_all_images_are() -> None:
    rng = torch.Generator().manual_seed(0)
    right = torch.randn(4, 1, 6, 6, generator=rng)
    one, every = right.clone(), 1.02 * right
    one[2] *= 1.05
    values = torch.zeros(4)
    reference = Gradients(values, right)
    assert (
        difference(reference, Gradients(values, one))
        < TOLERANCE
        < difference(reference, Gradients(values, every))
    )
    one[2] *= 2
    assert difference(reference, Gradients(values, one)) > TOLERANCE
    one[2] = torch.nan
    assert difference(reference, Gradients(values, one)) == float("inf")
    assert difference(Gradients(values, 0 * right), Gradients(values, 0 * right)) == 0
