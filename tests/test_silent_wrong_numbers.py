"""Kinds of input that once gave wrong numbers without a word: each is right now, or refused with the

remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import upi
from tests.conftest import convolutional, images
from upi.core.errors import CurvatureWarning, ModelError
from upi.data.shape import Shape
from upi.models.nets import NETS
from upi.network.kinks import FLAGGED, find_kinks
from upi.perturbation.pattern import Perturbation

LABELS = torch.arange(12) % 4


def fit(net: nn.Module | upi.Classifier, **options: object) -> Perturbation:
    attack = upi.UPIGrad(net, eps=0.5, steps=6, **options)  # type: ignore[arg-type]
    return attack.fit([images(12)])


def cosine(first: Perturbation, second: Perturbation) -> float:
    return float(F.cosine_similarity(first.delta.flatten(), second.delta.flatten(), dim=0))


class Parts(nn.Module):
    """Two halves, the second behind ``around``."""

    def __init__(self, around: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, 4))
        self.around = around

    def forward(self, x: Tensor) -> Tensor:
        return self.around(self.second, self.first(x))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_networks_are_fitted_as_others(reentrant: bool) -> None:
    plain = fit(Parts(lambda net, x: net(x)))
    kept = fit(Parts(lambda net, x: checkpoint(net, x, use_reentrant=reentrant)))
    torch.testing.assert_close(kept.delta, plain.delta)


def test_outside_the_library_checkpoints_work_as_before() -> None:
    fit(Parts(lambda net, x: checkpoint(net, x, use_reentrant=False)))
    calls = []

    def counted(net: nn.Module, x: Tensor) -> Tensor:
        def run(inner: Tensor) -> Tensor:
            calls.append(1)
            return net(inner)

        return checkpoint(run, x, use_reentrant=False)

    Parts(counted)(images(2)).sum().backward()
    assert len(calls) == 2  # once forward, once again for the backward pass


class BatchCentred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional(nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x - x.mean(0, keepdim=True))


@pytest.mark.parametrize(
    "net",
    [
        BatchCentred(),
        nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(64, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Softmax(0)),
    ],
)
def test_images_that_influence_each_other_are_refused(net: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"influence each other.*Give it running statistics"):
        fit(net)
    with pytest.raises(ModelError, match="influence each other"):
        upi.evaluate(net, {}, [images(12)], norm="l2", eps=0.5, controls=("random",))


def test_fingerprints_tell_networks_apart_by_what_they_compute() -> None:
    def built(activation: type[nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )

    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.net = built(nn.ReLU)
            self.register_buffer("factor", torch.tensor(factor), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x * self.factor)

    relu = built(nn.ReLU)
    different = [relu, built(nn.GELU), Scaled(1.0), Scaled(0.5)]
    different += [upi.Classifier(relu, mean=0.5).net]
    prints = [upi.Classifier(net).fingerprint() for net in different[:4]]
    prints.append(upi.Classifier(relu, mean=0.5).fingerprint())
    prints.append(upi.Classifier(relu, output=lambda out: out.flip(1)).fingerprint())
    prints.append(upi.Classifier(relu, multi_label=True, label=0).fingerprint())
    assert len(set(prints)) == len(prints)


def test_fingerprints_look_through_wrappers_that_compute_the_same() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    own = upi.Classifier(net).fingerprint()
    for wrapped in (nn.Sequential(net), nn.DataParallel(net), torch.compile(net), deepcopy(net).train()):
        assert upi.Classifier(wrapped).fingerprint() == own
    with torch.no_grad():
        next(net.parameters()).mul_(1.01)
    assert upi.Classifier(net).fingerprint() != own


def noisy(model: object, x: Tensor, target: Tensor) -> Tensor:
    return upi.saliency.Gradient()(model, x + 0.1 * torch.randn_like(x), target)


def over_the_batch(model: object, x: Tensor, target: Tensor) -> Tensor:
    maps = upi.saliency.Gradient(normalize="none")(model, x, target)
    return maps / maps.sum()


@pytest.mark.parametrize(
    ("saliency", "message"), [(noisy, "two calls differ by"), (over_the_batch, "rest of its batch")]
)
def test_maps_that_are_no_function_of_the_image_are_refused(
    saliency: upi.core.types.SaliencyMap, message: str, relu_net: nn.Module
) -> None:
    with pytest.raises(ModelError, match=message):
        fit(relu_net, saliency=saliency)
    with pytest.raises(ModelError, match=message):
        upi.evaluate(relu_net, {}, [images(12)], saliency=saliency, norm="l2", eps=0.5, controls=("random",))


def half_detached(model: object, x: Tensor, target: Tensor) -> Tensor:
    maps = upi.saliency.Gradient(normalize="none")(model, x, target)
    return maps * maps.detach()  # the gradient of half of it is missing


def test_maps_that_only_look_differentiable_are_refused(relu_net: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"not differentiable as it claims.*Fit on a map of this library"):
        fit(relu_net, saliency=half_detached)


def test_a_right_map_of_ones_own_is_taken(relu_net: nn.Module) -> None:
    def own(model: object, x: Tensor, target: Tensor) -> Tensor:
        return upi.saliency.Gradient()(model, x, target)

    torch.testing.assert_close(fit(relu_net, saliency=own).delta, fit(relu_net).delta)


def test_threads_on_one_classifier_get_the_numbers_of_one(relu_net: nn.Module) -> None:
    relu_net.train()
    model = upi.Classifier(relu_net)
    alone = upi.evaluate(model, {}, [images(12)], norm="l2", eps=0.5, controls=("random",))
    expected = fit(model).delta

    def work(number: int) -> object:
        if number % 2:
            return fit(model).delta
        table = upi.evaluate(model, {}, [images(12)], norm="l2", eps=0.5, controls=("random",))
        return table.rows["random"].dissimilarity.mean

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(8)))
    assert all(value == alone.rows["random"].dissimilarity.mean for value in found[::2])
    for delta in found[1::2]:
        torch.testing.assert_close(delta, expected)
    assert relu_net.training
    assert all(parameter.requires_grad for parameter in relu_net.parameters())


def test_images_that_come_twice_count_once(relu_net: nn.Module) -> None:
    x = images(8)
    once = upi.evaluate(relu_net, {}, [x], norm="l2", eps=0.5, controls=("random",))
    twice = upi.evaluate(relu_net, {}, [x, x.flip(0), x], norm="l2", eps=0.5, controls=("random",))
    assert twice.n_test == once.n_test == 8
    assert twice.rows["random"].dissimilarity == once.rows["random"].dissimilarity
    assert (
        "16 of 24 images came before" in {flag.code: flag.message for flag in twice.flags}["repeated-images"]
    )


def test_test_images_that_were_fitted_on_are_flagged(relu_net: nn.Module) -> None:
    perturbation = fit(relu_net)
    fitted, new = images(12), images(12, seed=5)
    mixed = torch.cat([fitted[:3], new[:9]])
    for x, said in ((fitted, "about 12 of the 12"), (mixed, "about 3 of the 12"), (new, None)):
        table = upi.evaluate(relu_net, {"upi-grad": perturbation}, [x], controls=("random",))
        flags = {flag.code: flag.message for flag in table.flags}
        assert (said is None) == ("fitted-on-test-images" not in flags)
        assert said is None or said in flags["fitted-on-test-images"]


def test_maps_with_nan_are_left_out_and_counted(relu_net: nn.Module) -> None:
    def broken(model: object, x: Tensor, target: Tensor) -> Tensor:
        maps = upi.saliency.Gradient()(model, x, target)
        dark = x.mean((1, 2, 3)) < x.mean((1, 2, 3)).new_tensor(0.49)
        return maps.masked_fill(dark[:, None, None], torch.nan)

    table = upi.evaluate(
        relu_net, {}, [images(12)], saliency=broken, norm="l2", eps=0.01, controls=("random",)
    )
    count = sum(float(image.mean()) < 0.49 for image in images(12))
    assert 0 < count < 12
    assert table.n_test == 12 - count
    assert f"{count} of 12" in {flag.code: flag.message for flag in table.flags}["not-finite-map"]


def test_integer_maps_are_evaluated_and_complex_ones_refused(relu_net: nn.Module) -> None:
    def coarse(model: object, x: Tensor, target: Tensor) -> Tensor:
        return (1e4 * upi.saliency.Gradient()(model, x, target)).long()

    def spectrum(model: object, x: Tensor, target: Tensor) -> Tensor:
        return torch.fft.fft2(upi.saliency.Gradient()(model, x, target))

    options = {"norm": "l2", "eps": 0.5, "controls": ("random",)}
    assert upi.evaluate(relu_net, {}, [images(6)], saliency=coarse, **options).n_test == 6
    with pytest.raises(ModelError, match=r"real numbers, got torch.complex64"):
        upi.evaluate(relu_net, {}, [images(6)], saliency=spectrum, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("attack", [upi.UPIGrad, upi.UPIPCA])
def test_networks_in_short_numbers_are_fitted_in_float32(attack: type, dtype: torch.dtype) -> None:
    short = convolutional(nn.ReLU).to(dtype)
    long = deepcopy(short).float()
    options = {"norm": "linf", "eps": 0.002, **({"steps": 6} if attack is upi.UPIGrad else {})}
    found, right = (attack(net, **options).fit([images(12)]) for net in (short, long))
    assert cosine(found, right) > 0.999
    assert next(short.parameters()).dtype == dtype


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (x > 0)


class HardSwish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.clamp(x + 3, torch.tensor(0.0), torch.tensor(6.0)) / 6


def _with(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), activation, nn.Flatten(), nn.Linear(96, 4)
    )


def test_an_activation_that_the_surrogate_does_not_know_is_named() -> None:
    with pytest.raises(ModelError, match=r"leaves kinks in 3 \(Gate\).*rows='stein'"):
        fit(_with(Gate()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_a_scripted_activation_is_named() -> None:
    with pytest.raises(ModelError, match=r"leaves kinks in 3 \(RecursiveScriptModule\)"):
        fit(_with(torch.jit.script(nn.ReLU())))


@pytest.mark.parametrize(
    "activation", [HardSwish(), nn.SELU(), nn.Threshold(0.0, 0.0, inplace=True), nn.GELU()]
)
def test_activations_that_it_knows_leave_no_kinks(activation: nn.Module) -> None:
    assert find_kinks(upi.Classifier(_with(activation)), images(4), 20.0).share < 0.01


def test_a_sharp_bend_is_no_kink() -> None:
    """Large activations bend softplus within a thousandth of a step: smooth, but not for few points."""
    torch.manual_seed(0)
    net = NETS["resnet18"](Shape(3, 32, 10), 0.125).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(4.0)
    assert find_kinks(upi.Classifier(net), images(4, shape=(3, 32, 32)), 20.0).share <= FLAGGED


def test_evaluation_says_where_attacks_see_only_a_part(relu_net: nn.Module) -> None:
    table = upi.evaluate(_with(Gate()), {}, [images(6)], norm="l2", eps=0.5, controls=("random", "per-image"))
    assert "3 (Gate)" in {flag.code: flag.message for flag in table.flags}["missed-curvature"]


def _numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(x.detach()).reshape(len(x), -1)[:, :4].copy())


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _numpy(x)


class NoGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional(nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.net(x)


@pytest.mark.parametrize("net", [Detached(), NoGrad()])
def test_a_forward_pass_without_gradient_is_named(net: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"no gradient with respect to the images.*no_grad"):
        fit(net)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, slope: Tensor) -> Tensor:
        return slope * 2


class OnceNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional(nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(Once.apply(x))


def test_an_operator_without_second_derivative_is_named_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"once_differentiable.*rows='stein'"):
        fit(OnceNet())
    stein = upi.UPIPCA(OnceNet(), eps=0.5, rows="stein").fit([images(12)])
    assert torch.isfinite(stein.delta).all()


def test_lazy_modules_are_refused_with_the_line_that_builds_them() -> None:
    with pytest.raises(ModelError, match=r"not built yet.*net\(x\[:1\]\)"):
        fit(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)))


def test_inside_inference_mode(relu_net: nn.Module) -> None:
    expected = fit(relu_net)
    with torch.inference_mode():
        torch.testing.assert_close(fit(relu_net).delta, expected.delta)
        table = upi.evaluate(relu_net, {"upi-grad": expected}, [images(6)])
    assert table.n_test == 6


class Compiled(nn.Module):
    """A function made by torch.compile inside the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional(nn.ReLU)
        self.act = torch.compile(lambda x: torch.relu(x) * 1.0, backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.act(x))


def test_compiled_functions_inside_a_forward_pass() -> None:
    plain = Compiled()
    plain.act = lambda x: torch.relu(x) * 1.0  # type: ignore[assignment]
    torch.testing.assert_close(fit(Compiled()).delta, fit(plain).delta)


class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Tensor]:
        yield from images(12)


def test_iterable_datasets_behind_a_loader(relu_net: nn.Module) -> None:
    loader = torch.utils.data.DataLoader(Stream(), batch_size=4)
    assert fit(relu_net).delta.shape == upi.UPIGrad(relu_net, eps=0.5, steps=3).fit(loader).delta.shape
    table = upi.evaluate(relu_net, {}, loader, norm="l2", eps=0.5, controls=("random",))
    assert table.n_test == 12


def test_rounding_outside_the_box_is_clipped(relu_net: nn.Module) -> None:
    x = images(6)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = -2e-6, 1 + 5e-5
    inside = x.clamp(0, 1)
    tables = [upi.evaluate(relu_net, {}, [y], norm="l2", eps=0.5, controls=("random",)) for y in (x, inside)]
    assert tables[0].rows["random"].dissimilarity == tables[1].rows["random"].dissimilarity


def test_missed_curvature_below_the_refusal_warns() -> None:
    class Little(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) + 0.05 * x * (x > 0)

    with pytest.warns(CurvatureWarning, match="leaves kinks in 3"):
        fit(_with(Little()))


def test_classes_in_another_order_are_flagged() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False), nn.BatchNorm1d(4)).eval()
    x = images(60)
    with torch.no_grad():
        net[2].running_mean = net[1](net[0](x)).mean(0)
    model = upi.Classifier(net)
    right = model.predict(x)
    classes = sorted(set(right.tolist()))
    assert len(classes) > 2
    moved = dict(zip(classes, [*classes[1:], classes[0]], strict=True))
    wrong = torch.tensor([moved[int(c)] for c in right])
    mixed = torch.where(torch.arange(60) % 5 == 0, right, wrong)
    options = {"norm": "l2", "eps": 0.5, "controls": ("random",)}
    table = upi.evaluate(net, {}, [(x, mixed)], **options)
    flags = {flag.code: flag.message for flag in table.flags}
    assert "20% of the images" in flags["labels-look-permuted"]
    assert "80% would be" in flags["labels-look-permuted"]
    assert "labels-look-permuted" not in {
        flag.code for flag in upi.evaluate(net, {}, [(x, right)], **options).flags
    }
    with pytest.raises(upi.errors.DataError, match="check the order of the classes"):
        upi.evaluate(net, {}, [(x, wrong)], **options)


def test_a_deformable_convolution_is_named_with_the_way_out() -> None:
    ops = pytest.importorskip("torchvision.ops")

    class Deformable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.offset = nn.Conv2d(1, 18, 3, padding=1)
            self.conv = ops.DeformConv2d(1, 6, 3, padding=1)
            self.head = nn.Linear(6 * 64, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.conv(x, self.offset(x))).flatten(1))

    with pytest.raises(ModelError, match="rows='stein'"):
        fit(Deformable())


class FlashInside(nn.Module):
    """Attention inside the user's own choice of kernel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.head = nn.Conv2d(1, 8, 2, 2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)[:, None].contiguous()
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            tokens = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.head(tokens[:, 0].mean(1))


def test_attention_in_a_kernel_of_the_users_choice() -> None:
    plain = FlashInside()
    found = fit(plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.attention, "sdpa_kernel", lambda *a: nullcontext())
        torch.testing.assert_close(fit(plain).delta, found.delta)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_a_scripted_network_is_refused_with_the_remedy() -> None:
    net = torch.jit.script(convolutional(nn.ReLU))
    with pytest.raises(ModelError, match="give the Python module instead of a scripted one"):
        fit(net)
    assert upi.evaluate(net, {}, [images(6)], norm="l2", eps=0.5, controls=("random",)).n_test == 6
