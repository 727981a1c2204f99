"""UPI-PCA: the top right singular vector of the matrix of per-sample attack gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.base import Attack, check_sigma, default_sigma
from upi.averaging import mean_over
from upi.classifier import Classifier
from upi.curvature import ROWS, CurvatureOperator, GradientRows, RowPlan, Source
from upi.errors import ConfigError, unknown_name
from upi.linalg import EigenResult, Operator, gram, power, sketch
from upi.loading import replayable
from upi.objective import MapChange
from upi.perturbation import Perturbation, as_perturbation, in_box
from upi.preparation import batches
from upi.recall import Recall
from upi.types import Loader, Progress

Solver = Callable[["UPIPCA", Operator], EigenResult]

SOLVERS: dict[str, Solver] = {
    "gram": lambda attack, operator: gram(operator, components=attack.tried),
    "sketch": lambda attack, operator: sketch(
        operator, components=attack.tried, rank=attack.rank, seed=attack.seed
    ),
    "power": lambda attack, operator: power(operator, steps=attack.steps, seed=attack.seed),
}
OPERATORS = (*ROWS, "curvature")
DRAWS = {"gradient": 8, "stein": 64}
COMPONENTS = 5


@dataclass(frozen=True)
class UPIPCA(Attack):
    """Maximise ||G delta|| over the ball, G the n x d matrix of rows g_i.

    g_i = E_Z[grad D(I(x_i), I(x_i + Z))]; the maximiser is the top right singular vector of
    G scaled to length eps (Ehsani Oskouie and Farnia, ICASSP 2023). In the l-inf ball the
    vector's signs are taken. Of the vector and its negative, the one that changes the maps of
    the ``select`` images more, on the network itself, is returned.

    Attributes:
        solver: ``"gram"`` (exact, float64), ``"sketch"`` (one pass, bounded memory) or
            ``"power"`` (the paper's stochastic power method).
        rows: ``"gradient"`` (double backward), ``"stein"`` (map values only), or
            ``"curvature"``: the curvature J^T M J at delta = 0 in place of G^T G.
        steps: Minibatch updates of ``"power"``.
        sigma: Deviation of Z, above zero; None makes its l2 norm half of the ball's l2 radius.
        draws: Draws of Z per image. For ``"gradient"`` each is a row of its own (None: 8, in the
            paper preset 1); for ``"stein"`` they are averaged in one row (None: 64).
        rank: Sketch size.
        components: Leading vectors tried; the one that changes the maps of the select images
            most is returned. None means 5, and 1 in the paper preset or for ``"power"``.
        surrogate: Softplus sharpness beta, None for the network itself, or ``"auto"``.
        clip: Draw rows at clip(x + Z) instead of x + Z.

    Raises:
        ConfigError: An option is unknown or outside its range.
    """

    solver: str = "gram"
    rows: str = "gradient"
    steps: int = 200
    sigma: float | None = None
    draws: int | None = None
    rank: int = 64
    components: int | None = None
    surrogate: float | str | None = "auto"
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sigma(self.sigma, least=1e-12)
        if self.solver not in SOLVERS:
            raise unknown_name("solver", self.solver, SOLVERS)
        if self.rows not in OPERATORS:
            raise unknown_name("rows", self.rows, OPERATORS)
        if min(self.steps, self.rank, self.tried, self.drawn) < 1:
            raise ConfigError("steps, rank, components and draws must be at least 1")
        if self.solver == "power" and self.tried > 1:
            raise ConfigError("the power method finds one component; use solver='gram' or 'sketch'")
        _ = self.beta(self.surrogate)

    @property
    def tried(self) -> int:
        """Leading vectors compared on the select images."""
        single = self.paper or self.solver == "power"
        return self.components if self.components is not None else 1 if single else COMPONENTS

    @property
    def drawn(self) -> int:
        """Draws of Z per image."""
        default = 1 if self.paper and self.rows == "gradient" else DRAWS.get(self.rows, 1)
        return default if self.draws is None else self.draws

    def deviation(self, dim: int) -> float:
        """Deviation of Z for images with ``dim`` entries."""
        return default_sigma(self.ball, dim, 0.5) if self.sigma is None else float(self.sigma)

    def _operator(self, source: Source, sigma: float) -> Operator:
        if self.rows == "curvature":
            return CurvatureOperator(source)
        plan = RowPlan(sigma, self.drawn, self.seed, self.clip)
        return GradientRows(source, rows=self.rows, plan=plan)

    def fit(
        self, loader: Loader, *, select: Loader | None = None, progress: Progress | None = None
    ) -> Perturbation:
        """Find the perturbation on the images of ``loader``.

        Args:
            loader: Iterable of (images, labels) or of images, in [0, 1].
            select: Held-out images that decide between +delta and -delta; the fitting images
                where it is not given. Never the test images.
            progress: Called with (batches done, batches) in each pass; 0 batches where unknown.

        Returns:
            The perturbation; its provenance holds the spectrum (leading singular values of
            G / sqrt(n), or square roots of the curvature's eigenvalues), residual, certificate
            and sign.

        Raises:
            DataError, ModelError: The images or the model break the contract.
            ZeroGradientError: The rows are exactly zero.
            NonFiniteError: A row has NaN or infinity.
        """
        loader = replayable(loader)
        held_out = loader if select is None else replayable(select)
        objective = MapChange(self.map, self.change)
        beta = None if self.rows == "stein" else self.beta(self.surrogate)
        differentiated = None if self.rows == "stein" else objective
        with self.fitting(loader, beta, differentiated) as (model, first):
            shape = first.shape[1:]
            sigma = self.deviation(first[0].numel())
            several = self.solver == "power" or self.rows == "curvature"
            recall = Recall(loader) if several else None
            source = Source(model, objective, loader, self.paper, progress, recall)
            result = SOLVERS[self.solver](self, self._operator(source, sigma))
        candidates = self.ball.extreme(result.vectors.to(torch.float32).view(-1, *shape))
        candidates = torch.cat([candidates, -candidates])
        scores = select_scores(self.classifier, objective, held_out, candidates, correct_only=self.paper)
        best = int(scores.argmax())
        count = len(result.vectors)
        evidence = self.record(
            sigma=sigma,
            spectrum=result.values.clamp_min(0).sqrt().tolist(),
            residual=None if result.residual != result.residual else result.residual,
            cosine_bound=result.cosine_bound,
            converged=result.converged,
            component=best % count,
            sign=1 if best < count else -1,
            select_scores=scores.tolist(),
            selected_on="fit" if select is None else "select",
            history=list(result.history),
        )
        return as_perturbation(candidates[best : best + 1], self.ball, evidence)


def select_scores(
    model: Classifier, objective: MapChange, loader: Loader, candidates: Tensor, *, correct_only: bool
) -> Tensor:
    """Mean change of the maps under clip(x + delta) for each candidate (B, C, H, W), (B,)."""
    with model.frozen():
        prepared = batches(model, objective, loader, correct_only=correct_only)
        return mean_over(
            prepared,
            lambda batch: torch.stack(
                [objective.change(model, batch, in_box(batch.x + c.to(batch.x))) for c in candidates],
                1,
            ),
        ).cpu()
