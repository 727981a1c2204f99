"""Step rules of the ascent: lengths that each perturbation measures for itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from upi.attacks.support.ascent import Ascent, MeasuredRule, Pace, Rule, Stride, ascend
from upi.core.errors import ConfigError
from upi.perturbation.ball import Ball

BALL = Ball("l2", 2.0)


def direction(number: int) -> Tensor:
    found = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    found[..., number] = 1.0
    return found


def turned(cosine: float) -> Tensor:
    """Unit, at an angle to the second direction, tangential to the ball at the first."""
    return cosine * direction(1) + math.sqrt(1 - cosine**2) * direction(2)


@pytest.mark.parametrize(
    ("cosine", "factor"), [(1.0, 4.0), (0.5, math.exp(0.7)), (0.15, 1.0), (0.0, math.exp(-0.3)), (-1.0, 0.7)]
)
def test_a_step_grows_while_gradients_agree_and_shrinks_where_they_turn(cosine: float, factor: float) -> None:
    pace = MeasuredRule(20).pace(BALL)
    delta = 2.0 * direction(0)
    first = pace(delta, direction(1), 0)
    assert first.length == 0.25
    second = pace(delta, 3.0 * turned(cosine), 1)
    length = min(0.6, 0.25 * factor)
    assert float(second.length) == pytest.approx(length * math.cos(math.pi / 40))
    assert first.momentum == second.momentum == 0.7


def test_l2_steps_divide_entries_by_their_own_size() -> None:
    pace, gradients = MeasuredRule(20).pace(BALL), torch.randn(3, 2, 1, 2, 4, dtype=torch.float64)
    squares = torch.zeros(2, 1, 2, 4, dtype=torch.float64)
    for step, gradient in enumerate(gradients):
        unit = gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
        squares = 0.9 * squares + 0.1 * unit.square()
        size = squares.sqrt()
        expected = size + 0.5 * size.flatten(1).mean(1)[:, None, None, None]
        stride = pace(torch.zeros(2, 1, 2, 4), gradient, step)
        torch.testing.assert_close(stride.scale, expected)
        assert torch.equal(stride.gradient, gradient)  # inside the ball all of it counts
    assert MeasuredRule(20).pace(Ball("linf", 0.1))(gradients[0], gradients[0], 0).scale == 1.0


def test_the_ascent_steps_along_the_scaled_momentum_and_projects_as_asked() -> None:
    @dataclass(frozen=True)
    class Scaled:
        steps: int = 1

        def pace(self, ball: Ball) -> Pace:
            return lambda delta, gradient, step: Stride(
                gradient, 0.5, 0.0, torch.tensor([1.0, 2.0, 4.0, 1.0])
            )

    gradient = torch.tensor([[[[1.0, 2.0, 4.0, 0.0]]]])
    start = torch.zeros(1, 1, 1, 4)
    found = ascend(lambda delta, step: Ascent(0.0, gradient), start, BALL, Scaled()).delta
    torch.testing.assert_close(found, torch.tensor([[[[1.0, 1.0, 1.0, 0.0]]]]) / 3**0.5)
    halved = ascend(
        lambda delta, step: Ascent(0.0, gradient), start, BALL, Scaled(), project=lambda delta: delta / 2
    ).delta
    torch.testing.assert_close(halved, found / 2)


def test_the_part_of_a_gradient_that_leaves_the_sphere_says_nothing() -> None:
    radial = 5.0 * direction(0)
    found = []
    for off in (torch.zeros_like(radial), radial):
        pace = MeasuredRule(20).pace(BALL)
        pace(2.0 * direction(0), direction(1) + off, 0)
        found.append(float(pace(2.0 * direction(0), turned(0.5) + off, 1).length))
    assert found[0] == pytest.approx(found[1])


def test_each_perturbation_has_its_own_length_fixed_after_the_first_steps() -> None:
    pace = MeasuredRule(10).pace(BALL)
    delta = 2.0 * torch.cat([direction(0), direction(0)])
    for step, cosine in enumerate((1.0, 1.0, 1.0)):
        pace(delta, torch.cat([direction(1), turned(cosine if step % 2 == 0 else -1.0)]), step)
    later = {step: torch.as_tensor(pace(delta, torch.randn(2, 1, 1, 4), step).length) for step in (3, 9)}
    lengths = [length / math.cos(math.pi * step / 20) for step, length in later.items()]
    torch.testing.assert_close(lengths[0], lengths[1])
    first, second = lengths[0].flatten().tolist()
    assert first == pytest.approx(0.6)  # 0.25 x 4 x 4, at most LONGEST
    assert second == pytest.approx(0.25 * 0.7 * 0.7)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_perturbations_in_one_ascent_do_not_see_each_other(norm: str) -> None:
    ball = Ball(norm, 0.5)
    torch.manual_seed(0)
    forms = torch.randn(3, 8, 8, dtype=torch.float64)
    start = ball.sample((3, 1, 2, 4), torch.Generator().manual_seed(0)).double()

    def raised(some: slice) -> Tensor:
        def objective(delta: Tensor, step: int) -> Ascent:
            point = delta.requires_grad_()
            values = (torch.einsum("bij,bj->bi", forms[some], point.flatten(1)) ** 2).sum(1)
            (gradient,) = torch.autograd.grad(values.sum(), point)
            return Ascent(float(values.detach().mean()), gradient)

        return ascend(objective, start[some], ball, MeasuredRule(30)).delta

    together = raised(slice(None))
    for number in range(3):
        torch.testing.assert_close(raised(slice(number, number + 1)), together[number : number + 1])
    if norm == "l2":  # the top right singular vector, which power iterations lead to
        top = torch.linalg.svd(forms).Vh[:, 0]
        cosines = (torch.nn.functional.normalize(together.flatten(1)) * top).sum(1).abs()
        assert bool((cosines > 0.99).all()), cosines


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_perturbation_without_a_gradient_stays_where_it_is(norm: str) -> None:
    ball, start = Ball(norm, 0.5), 0.1 * torch.ones(2, 1, 2, 2)
    moves = torch.tensor([0.0, 1.0])[:, None, None, None] * torch.arange(4.0).view(1, 1, 2, 2)
    found = ascend(lambda delta, step: Ascent(0.0, moves), start, ball, MeasuredRule(4)).delta
    torch.testing.assert_close(found[0], start[0])
    assert bool(torch.isfinite(found).all())
    assert not torch.equal(found[1], start[1])


def test_rules_want_a_step() -> None:
    for rule in (MeasuredRule, lambda steps: Rule(steps, 1.0, 0.5)):
        with pytest.raises(ConfigError, match="steps >= 1"):
            rule(0)
