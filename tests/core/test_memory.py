"""Where memory does not suffice for all images at once: halves, and the same numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upi
from upi.core.errors import FallbackWarning, MemoryLimitError
from upi.core.memory import in_halves, is_out_of_memory


class Small(nn.Module):
    """A network that fits ``most`` images in memory; a backward pass takes twice as much."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        ).double()  # forty steps of an attack enlarge the last digits of float32
        self.most, self.failed = most, 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > (self.most // 2 if x.requires_grad else self.most):
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        found: Tensor = self.net(x)
        return found


def images() -> list[tuple[Tensor, Tensor]]:
    model, rng = upi.Classifier(Small(100)), torch.Generator().manual_seed(0)
    x = [torch.rand(10, 1, 8, 8, generator=rng) for _ in range(3)]
    return [(part, model.predict(model.place(part))) for part in x]


ATTACKS: dict[str, Callable[[nn.Module], upi.Perturbation]] = {
    "UPI-Grad": lambda net: upi.UPIGrad(net, eps=0.5, steps=6, prediction_price=0.5).fit(images()),
    "UPI-PCA": lambda net: upi.UPIPCA(net, eps=0.5, components=3, prediction_price=0.5).fit(images()),
    "one step, price": lambda net: upi.UPIGrad(net, eps=0.5, steps=3, prediction_price=2.0).fit(images()),
}


@pytest.mark.filterwarnings("ignore::upi.core.errors.FallbackWarning")
@pytest.mark.parametrize("most", [2, 6])
@pytest.mark.parametrize("attack", ATTACKS)
def test_fits_in_little_memory_are_those_in_much(attack: str, most: int) -> None:
    little, much = Small(most), Small(100)
    found, expected = ATTACKS[attack](little), ATTACKS[attack](much)
    assert little.failed > 0
    assert much.failed == 0
    torch.testing.assert_close(found.delta, expected.delta, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::upi.core.errors.FallbackWarning")
def test_an_evaluation_in_little_memory_is_one_in_much() -> None:
    much = Small(100)
    pattern = ATTACKS["UPI-Grad"](much)
    tables = [upi.evaluate(net, {"one": pattern}, images()) for net in (Small(4), much)]
    for row in tables[1].rows:
        for name, values in tables[1].per_sample[row].items():
            np.testing.assert_allclose(tables[0].per_sample[row][name], values, atol=1e-5, err_msg=name)


def test_what_fits_is_remembered_and_said_once() -> None:
    net = Small(6)
    model = upi.Classifier(net)
    with pytest.warns(FallbackWarning, match=r"predictions .* 5 at a time"):
        model.predict(torch.rand(10, 1, 8, 8).double())
    failed = net.failed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(torch.rand(10, 1, 8, 8).double())
    assert net.failed == failed


@pytest.mark.filterwarnings("ignore::upi.core.errors.FallbackWarning")
def test_a_single_image_that_does_not_fit_is_an_error_of_this_library() -> None:
    with pytest.raises(MemoryLimitError, match="predictions of a single image do not fit in memory"):
        upi.Classifier(Small(0)).predict(torch.rand(3, 1, 8, 8).double())


def test_slices_cover_everything_in_order() -> None:
    owner = nn.Identity()

    def work(some: slice) -> list[int]:
        if some.stop - some.start > 3:
            raise MemoryError
        return list(range(some.start, some.stop))

    with pytest.warns(FallbackWarning):
        found = in_halves(work, 13, owner=owner, kind="numbers")
    assert [number for part in found for number in part] == list(range(13))
    assert in_halves(lambda some: some, 0, owner=owner, kind="nothing") == [slice(0, 0)]


def test_other_errors_stay_what_they_are() -> None:
    def work(some: slice) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_halves(work, 4, owner=nn.Identity(), kind="x")


def test_what_pytorch_says_where_memory_ends() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("out of memory"))
