"""The per-image attack: its rule on the panel beside the one of version 0.1.

    UPI_DATA=... python -m benchmarks.per_image NETWORK ...     # measure, kept in benchmarks/results/panel
    python -m benchmarks.per_image > docs/per-image.md          # write the table

Mean change of the simple-gradient map on the network itself over images of the select split, with the price
0.5 on predictions, as a share of what the rule of version 0.1 reaches in 40 steps: steps of equal length for
all images (first step eps, momentum 0.5, both norms), one softplus (beta 20, clean maps through it too), in
the ball alone, so that clipping takes what leaves [0, 1], the best of five iterates. A step is one attack
gradient of every image; comparing an iterate on the network itself costs a map, five there and one here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

import upi
from benchmarks.panel import MEMBERS, Member, Record, main, page_of, records
from upi.attacks.support.ascent import Ascent, Rule, ascend
from upi.attacks.support.gradients import gradients
from upi.attacks.support.objective import MapChange, explained_batch
from upi.core.seeding import generator
from upi.core.types import Perturber
from upi.network.smooth import SURROGATE_BETA
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import in_box

#: Steps that are measured of each rule; shares are of the last of the first one.
STEPS = {"equal": (10, 20, 40), "measured": (8, 12, 20, 40)}
#: Radius of the l-inf ball beside the panel's l2 one, and images, by the side of the images.
LINF = {28: 0.1, 32: 2 / 255, 224: 2 / 255}
COUNT = {28: 100, 32: 60, 224: 12}
PRICE, CHECKS = 0.5, 5


@dataclass(frozen=True)
class EqualSteps:
    """The rule of version 0.1."""

    model: upi.Classifier
    ball: Ball
    steps: int

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """Perturbed images (N, C, H, W)."""
        objective = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2, PRICE)
        half = self.steps // 2
        looks = {self.steps - round(half * number / CHECKS) for number in range(1, CHECKS)}
        best, most = torch.zeros_like(x), torch.full((len(x),), -torch.inf)
        with self.model.frozen():
            surrogate = self.model.surrogate(SURROGATE_BETA)
            own = explained_batch(objective, self.model, x, target)
            smooth = explained_batch(objective, surrogate, x, target)

            def keep(delta: Tensor) -> None:
                nonlocal best, most
                value = objective.measured(self.model, own, in_box(x + delta))
                best = torch.where((value > most)[:, None, None, None], delta, best)
                most = torch.maximum(value, most)

            def raised(delta: Tensor, step: int) -> Ascent:
                here = gradients(surrogate, objective, smooth, in_box(x + delta), where=f"step {step}")
                if step in looks:
                    keep(delta)
                return Ascent(float(here.values.mean()), here.gradient)

            start = self.ball.sample(tuple(x.shape), generator(0, "per-image"))
            keep(ascend(raised, start, self.ball, Rule(self.steps, 1.0, 0.5)).delta)
        return in_box(x + best)


def _attack(member: Member, rule: str, steps: int, norm: str, eps: float) -> Perturber:
    if rule == "equal":
        return EqualSteps(member.model, Ball(norm, eps), steps)
    return upi.PerImageAttack(member.model, norm=norm, eps=eps, steps=steps, prediction_price=PRICE)


def _change(member: Member, norm: str, rule: str, steps: int) -> dict[str, float]:
    side = member.select.images.shape[-1]
    eps = member.eps if norm == "l2" else LINF[side]
    images = member.select.first(COUNT[side]).batches(25)
    attack = _attack(member, rule, steps, norm, eps)
    row = upi.evaluate(member.model, {"x": attack}, images, norm=norm, eps=eps, controls=False).rows["x"]
    return {"change": row.dissimilarity.mean, "flips": row.prediction_changed, "n": row.dissimilarity.n}


def measure(name: str) -> None:
    """Every rule, norm and number of steps on one network."""
    member = MEMBERS[name]()
    record = Record("per-image", member)
    for norm in ("l2", "linf"):
        for rule, several in STEPS.items():
            for steps in several:
                record.line(f"{norm}/{rule}/{steps}", partial(_change, member, norm, rule, steps))


WHOLE = STEPS["equal"][-1]


def _columns() -> list[tuple[str, int]]:
    """What is shown as a share of the whole: all but the whole itself."""
    several = [(rule, steps) for rule, some in STEPS.items() for steps in some]
    return [each for each in several if each != ("equal", WHOLE)]


def table() -> str:
    """A line for each network and norm, shares in per cent."""
    head = [f"{rule} {steps}" for rule, steps in _columns()]
    lines = [f"| network | norm | equal {WHOLE} | " + " | ".join(head) + " |"]
    lines.append("|---" * (3 + len(head)) + "|")
    shares: list[list[float]] = []
    for record in records("per-image").values():
        for norm, sign in (("l2", "ℓ2"), ("linf", "ℓ∞")):
            found = record["lines"]
            whole = found[f"{norm}/equal/{WHOLE}"]["change"]
            part = [found[f"{norm}/{rule}/{steps}"]["change"] / whole for rule, steps in _columns()]
            shares.append(part)
            cells = " | ".join(f"{share:.0%}" for share in part)
            lines.append(f"| {record['about']['network']} | {sign} | {whole:.3f} | {cells} |")
    median = " | ".join(f"**{share:.0%}**" for share in np.median(np.array(shares), axis=0))
    return "\n".join([*lines, f"| median | | | {median} |"])


#: What the table says, written down when it was made.
CONCLUSION = """
Half the steps of today's rule reach 105 % of what the whole of the old one did in the median, 105 % or
more on every network in l2 and 89 to 110 % in l-inf; at equal steps it is stronger everywhere, by 6 to 44
% in l-inf and up to three times in l2. The climb goes on beyond: `steps` buys a stronger control.

What did it, at 20 steps (measured once while building, on 50 to 100 select images of digits, VGG-16, ViT
and ResNet-32, six of EfficientNet-Lite0):

* l2 steps that divide each pixel by the size of its gradients: ResNet-32 102 to 137 %, EfficientNet-Lite0
  90 to 190 %, ViT 98 to 108 %, nothing on VGG-16. A power of the gradient's entries (1/2) instead: 121,
  159, 108 %.
* a softplus that grows sharper, 10 to 30 in l2 and 15 to 50 in l-inf: VGG-16 92 to 104 % in l2, ResNet-32
  90 to 99 % and EfficientNet-Lite0 88 to 100 % in l-inf. Three stages do what twenty do; 5 to 40 is
  weaker.
* the projection on the ball inside [0, 1]: digits 97 to 108 % in l2, where most pixels are at 0 and
  cannot go below; next to nothing on photographs.
* clean maps of the network itself instead of the surrogate's: EfficientNet-Lite0 206 to 230 %, elsewhere
  within 3 %.
* momentum 0.7 for all lengths of step instead of 0.3 to 0.9 by length: 1 to 5 %.

Weaker or no better: other starts (a tenth of the radius, corners of the cube), Nesterov's step, an
accumulator that is clipped only when it is used, tanh in place of the cube, half a cosine, looking at the
last three iterates. Without the radial part left out, scaled l2 steps stop beside the optimum (a planted
quadratic reaches less than 99 % of it). Earlier tries, on the rule before: step-size adaptation by the
value (as in Auto-PGD), secant steps, conjugate gradients and L-BFGS on the sphere were weaker at 20 steps
on digits or ResNet-32, by 5 to 25 %.

Kept results in `results/` were made with the rule of version 0.1 (`EqualSteps` here)."""


if __name__ == "__main__":
    main(measure, lambda: page_of("The per-image attack", __doc__, table(), CONCLUSION))
