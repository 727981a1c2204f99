"""The search of a UPI-PCA fit: rows, their leading vectors, a choice on the select images, refinement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor

from upi.attacks.base import Attack
from upi.attacks.support.curvature import CurvatureOperator
from upi.attacks.support.objective import MapChange
from upi.attacks.support.rows import ExplainedImages, GradientRows, PricedRows, RowPlan
from upi.attacks.support.selection import Selection
from upi.core.distributed import from_lead, leads
from upi.core.steps import Step, Steps
from upi.core.types import Loader, Progress, SaliencyMap
from upi.data.cache import ImageCache
from upi.data.images import samples
from upi.linalg import EigenResult, Operator, follow, gram, power, sketch

#: (plan, operator, vectors wanted, seed) to leading eigenpairs.
Solver = Callable[["SearchPlan", Operator, int, int], EigenResult]

SOLVERS: dict[str, Solver] = {
    "gram": lambda plan, operator, count, seed: gram(operator, components=count),
    "sketch": lambda plan, operator, count, seed: sketch(
        operator, components=count, rank=plan.rank, seed=seed
    ),
    "power": lambda plan, operator, count, seed: power(operator, steps=plan.steps, seed=seed),
}
#: How far along the mean row a refinement looks, in units of the radius.
STRIDES = (0.1, 0.25, 0.5, 1.0, 2.0)
#: Least relative gain on the select images for which another refinement is worth its pass.
GAIN = 0.005


@dataclass(frozen=True)
class RowForm:
    """Of which map, on which network, the rows are gradients.

    Attributes:
        score: Score that is explained in place of the map's own; None for the map itself.
        beta: Softplus sharpness of the surrogate, or None for the network itself.
    """

    score: str | None
    beta: float | None

    def of(self, saliency: SaliencyMap) -> SaliencyMap:
        """The map whose gradients are taken."""
        return saliency if self.score is None else replace(saliency, score=self.score)  # type: ignore[type-var]

    def __str__(self) -> str:
        network = "network" if self.beta is None else f"surrogate {self.beta:g}"
        return f"{self.score or 'own'} score, {network}"


@dataclass(frozen=True)
class SearchPlan:
    """What a search does; see ``UPIPCA`` for the options.

    Attributes:
        solver, steps, rank: Name of the solver, updates of ``"power"``, sketch size.
        rows, scale, draws, clip: Kind and length of the rows, draws of Z per image, and the box.
        forms: Forms of the rows whose leading vectors are tried; refinements take the first one.
        tried: Leading vectors of each form that are compared.
        refinements: Passes over the rows around the pattern found, at the most.
        price: Price on moving towards another prediction.
    """

    solver: str
    steps: int
    rank: int
    rows: str
    scale: str
    draws: int
    clip: bool
    forms: tuple[RowForm, ...]
    tried: int
    refinements: int
    price: float


@dataclass(frozen=True)
class Found:
    """The best candidate so far, and how it came about."""

    delta: Tensor  # (1, C, H, W)
    score: float  # mean value on the select images
    form: RowForm
    result: EigenResult
    evidence: dict[str, Any]


class RowSearch:
    """Rounds of one fit: rows, their leading vectors, and a choice on the select images."""

    def __init__(
        self,
        attack: Attack,
        plan: SearchPlan,
        sigma: Callable[[int], float],
        loader: Loader,
        select: Loader | None,
        progress: Progress | None,
        steps: Steps | None = None,
    ) -> None:
        self.steps = steps or Steps(None)
        self.attack, self.plan, self.loader, self.progress = attack, plan, loader, progress
        self.select = select
        several = plan.solver == "power" or plan.rows == "curvature" or plan.refinements > 0
        self.caches = {form: ImageCache(loader) if several else None for form in plan.forms}
        self.trail: list[dict[str, Any]] = []
        self.shape = tuple(next(samples(loader)).x.shape[1:])
        self.sigma = sigma(math.prod(self.shape))

    @cached_property
    def selection(self) -> Selection:
        """The select images, or the fitting images where there are none, as candidates meet them."""
        objective = MapChange(self.attack.map, self.attack.change, self.plan.price)
        held_out = self.loader if self.select is None else self.select
        correct_only = self.attack.protocol.correct_only
        return Selection(self.attack.classifier, objective, held_out, correct_only=correct_only)

    def run(self) -> Found:
        """The best leading vector, refined as long as that gains on the select images."""
        best = self.first()
        for number in range(1, self.plan.refinements + 1):
            better = self.refined(best, number)
            if better is None:
                break
            best = better
        return best

    def first(self) -> Found:
        """The best of the leading vectors of each form, and of their negatives."""
        ball = self.attack.ball
        found: list[Found] = []
        for number, form in enumerate(self.plan.forms):
            result = self._kept(number, form)
            vectors = ball.extreme(self.shaped(result))
            labels = [{"component": k, "sign": s} for s in (1, -1) for k in range(len(vectors))]
            candidates = torch.cat([vectors, -vectors])
            scores = self.steps.tensor(f"scores {number}", partial(self._ranked, candidates))
            found.append(_best(form, result, candidates, labels, scores))
        best = max(found, key=lambda each: each.score)
        for each in found:
            self._note(each, kept=each is best)
        return best

    def refined(self, best: Found, number: int) -> Found | None:
        """A step from the best pattern along the mean row around it; None where none gains.

        At delta = 0 a map changes as much along a direction as against it, so only the second moments of
        the rows say anything; away from 0 the first order has a sign, and the mean row is its
        steepest direction. The rows are those of the first form, whichever won before: only the
        surrogate knows how the maps bend from here. A price has a gradient here, so it joins them.
        """
        attack, plan, ball = self.attack, self.plan, self.attack.ball
        form = plan.forms[0]
        objective = MapChange(form.of(attack.map), attack.change, plan.price)

        def mean_row() -> Tensor:
            with self._rows(form, objective, best.delta, number) as rows:
                for _ in rows.blocks():
                    pass
                return from_lead(lambda: rows.total)

        total = self.steps.tensor(f"rows {number}", mean_row)
        step = ball.extreme(total.float().view(1, *self.shape))
        candidates = torch.cat([ball.outward(best.delta + stride * step) for stride in STRIDES])
        scores = self.steps.tensor(f"strides {number}", lambda: self.selection.scores(candidates))
        chosen = int(scores.argmax())
        score = float(scores[chosen])
        kept = score > best.score + GAIN * abs(best.score)
        self.trail.append(
            {"form": str(form), "refinement": number, "stride": STRIDES[chosen], "score": score, "kept": kept}
        )
        return replace(best, delta=candidates[chosen : chosen + 1], score=score) if kept else None

    def _ranked(self, candidates: Tensor) -> Tensor:
        """Scores of candidates on the select images."""
        return self.selection.ranked(candidates)

    def _kept(self, number: int, form: RowForm) -> EigenResult:
        """Leading vectors of a form, from the state of a fit that was cut short where they are there."""

        def make() -> Step:
            found = self.solve(form, self.plan.tried)
            tensors = {
                "values": found.values,
                "vectors": found.vectors,
                "history": torch.tensor(found.history, dtype=torch.float64),
                "certificate": torch.tensor([found.residual, found.cosine_bound], dtype=torch.float64),
            }
            return Step(tensors, {"iterations": found.iterations, "converged": bool(found.converged)})

        step = self.steps.step(f"vectors {number}", make)
        residual, bound = step.tensors["certificate"].tolist()
        return EigenResult(
            step.tensors["values"],
            step.tensors["vectors"],
            residual,
            int(step.facts["iterations"]),
            bool(step.facts["converged"]),
            bound,
            tuple(step.tensors["history"].tolist()),
        )

    def solve(self, form: RowForm, count: int) -> EigenResult:
        """Leading vectors of the rows of one form at delta = 0."""
        attack, plan = self.attack, self.plan
        objective = MapChange(form.of(attack.map), attack.change)
        with self._rows(form, objective) as rows:
            operator: Operator = rows
            if plan.rows == "curvature":
                operator = CurvatureOperator(rows.images)
            elif plan.price:
                operator = PricedRows(rows, plan.price)
            return self._solved(operator, count)

    def _solved(self, operator: Operator, count: int) -> EigenResult:
        """Of several workers the leading one, which gets the rows, solves; the others compute their share."""
        plan = self.plan

        def solve() -> EigenResult:
            return SOLVERS[plan.solver](plan, operator, count, self.attack.seed)

        if isinstance(operator, CurvatureOperator) or leads():  # every product is a sum over all workers
            result = solve()
        else:
            result = None
            updates = plan.steps if plan.solver == "power" else 0
            follow(operator, updates)
        return from_lead(lambda: cast(EigenResult, result))

    @contextmanager
    def _rows(
        self, form: RowForm, objective: MapChange, centre: Tensor | None = None, epoch: int = 0
    ) -> Iterator[GradientRows]:
        """Rows of one form around ``centre``, on the frozen network."""
        attack, plan = self.attack, self.plan
        differentiated = None if plan.rows == "stein" else objective
        with attack.fitting(self.loader, form.beta, differentiated) as (surrogate, _):
            images = ExplainedImages(
                surrogate,
                objective,
                self.loader,
                attack.protocol.correct_only,
                self.progress,
                self.caches[form],
                kept=replace(objective, prediction_price=plan.price),
            )
            drawn = RowPlan(self.sigma, plan.draws, attack.seed, plan.clip, plan.scale, centre, epoch)
            kind = "gradient" if plan.rows == "curvature" else plan.rows
            yield GradientRows(images, rows=kind, plan=drawn)

    def shaped(self, result: EigenResult) -> Tensor:
        """Vectors as patterns (k, C, H, W), float32."""
        return result.vectors.to(torch.float32).view(-1, *self.shape)

    def _note(self, found: Found, *, kept: bool) -> None:
        labels = {key: value for key, value in found.evidence.items() if key != "select_scores"}
        self.trail.append({"form": str(found.form), "score": found.score, "kept": kept, **labels})


def _best(
    form: RowForm, result: EigenResult, candidates: Tensor, labels: list[dict[str, Any]], scores: Tensor
) -> Found:
    """The candidate of the highest score."""
    best = int(scores.nan_to_num(-torch.inf).argmax())
    shown = [None if score != score else score for score in scores.tolist()]
    evidence = {**labels[best], "select_scores": shown}
    return Found(candidates[best : best + 1], float(scores[best]), form, result, evidence)
