"""UPI-PCA: the top right singular vector of the matrix of per-sample attack gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upi.attacks.base import Attack, check_price, check_sigma, default_sigma
from upi.attacks.registry import declare
from upi.attacks.support.row_search import SOLVERS, RowForm, RowSearch, SearchPlan
from upi.attacks.support.rows import ROWS, SCALES
from upi.core.errors import ConfigError, unknown_name
from upi.core.rows import ROWS as STYLES, UPI_PCA
from upi.core.steps import Steps
from upi.core.types import Loader, Progress
from upi.data.content import sketch
from upi.data.images import replayable, samples
from upi.linalg import EigenResult
from upi.perturbation.pattern import Perturbation, as_perturbation
from upi.perturbation.subspace import Subspace

OPERATORS = (*ROWS, "curvature")
#: Draws of Z that are averaged in a Stein row.
STEIN_DRAWS = 64
#: Eigenvalue, as a share of the largest, below which rows do not span a direction.
RANK = 1e-12


@declare(STYLES[UPI_PCA], order=1, options=("prediction_price", "clip", "draws"))
@dataclass(frozen=True)
class UPIPCA(Attack):
    """Maximise ||G delta|| over the ball, G the n x d matrix of rows g_i.

    g_i = E_Z[grad D(I(x_i), I(x_i + Z))]; the maximiser is the top right singular vector of
    G scaled to length eps (Ehsani Oskouie and Farnia, ICASSP 2023). In the l-inf ball the
    vector's signs are taken. Leading vectors and their negatives are compared on the ``select``
    images by the maps of the network itself; the best one is kept.

    The protocol goes beyond the published form where public networks showed that it has to
    (docs/method.md): rows have length 1; they are taken of the surrogate's map *and* of the softmax
    score's map on the network itself, and the select images decide; the chosen vector is then refined:
    rows around it have a mean that is not zero, along which the pattern is moved as long as that gains
    on the select images. ``refinements=0`` is the singular vector and no more; ``preset="paper"`` is
    the published form.

    A price on predictions enters in two ways. At delta = 0, where it has no gradient, G^T G / n becomes
    G^T G / n - price V^T V / m; in refinements the rows are gradients of the priced objective.

    Attributes:
        solver: ``"gram"`` (exact, float64), ``"sketch"`` (one pass, bounded memory) or
            ``"power"`` (the paper's stochastic power method, which finds one vector).
        rows: ``"gradient"`` (double backward), ``"stein"`` (map values only), or
            ``"curvature"``: the curvature J^T M J at delta = 0 in place of G^T G.
        steps: Minibatch updates of ``"power"``.
        sigma: Deviation of Z, above zero; None makes its l2 norm half of the ball's l2 radius.
        draws: Draws of Z per image. For ``"gradient"`` each is a row of its own (None: 2, in the
            paper preset 1); for ``"stein"`` they are averaged in one row (None: 64).
        rank: Sketch size.
        components: Leading vectors tried of each form; None means 20, 8 for maps of several passes, and 1
            in the paper preset or for ``"power"``.
        surrogate: Softplus sharpness beta, None for the network itself, or ``"auto"``: in the protocol
            both forms of the rows, and the select images decide; in the paper preset None.
        row_scale: ``"unit"``, ``"none"``, or ``"auto"``: unit length except in the paper preset.
        refinements: Passes over rows around the chosen vector at the most, at least 0; None means 4, and 0
            in the paper preset or for ``"curvature"``, which has no other place to look from.
        prediction_price: Price on moving towards another prediction, at least 0; as in ``UPIGrad`` when
            candidates are compared. V holds the gradients of the explained class's log-odds, of length 1.
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
    row_scale: str = "auto"
    refinements: int | None = None
    prediction_price: float = 0.0
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sigma(self.sigma, least=1e-12)
        check_price(self.prediction_price)
        if self.solver not in SOLVERS:
            raise unknown_name("solver", self.solver, SOLVERS)
        if self.rows not in OPERATORS:
            raise unknown_name("rows", self.rows, OPERATORS)
        if self.row_scale not in ("auto", *SCALES):
            raise unknown_name("row_scale", self.row_scale, ("auto", *SCALES))
        if min(self.steps, self.rank, self.tried, self.drawn) < 1 or self.planned < 0:
            raise ConfigError("steps, rank, components and draws must be at least 1, refinements at least 0")
        if self.solver == "power" and self.tried > 1:
            raise ConfigError("the power method finds one component; use solver='gram' or 'sketch'")
        if self.rows == "curvature":
            self._check_curvature()
        _ = self.beta(self.surrogate)

    def _check_curvature(self) -> None:
        if self.planned:
            raise ConfigError("rows='curvature' looks at delta = 0 only: refinements must be 0")
        if self.prediction_price:
            raise ConfigError("rows='curvature' has no rows to price: use rows='gradient' or 'stein'")

    @property
    def tried(self) -> int:
        """Leading vectors compared on the select images."""
        if self.components is not None:
            return self.components
        if self.solver == "power":
            return 1
        fast = getattr(self.map, "passes", 1) == 1
        return self.protocol.components if fast else self.protocol.components_of_slow_maps

    @property
    def drawn(self) -> int:
        """Draws of Z per image."""
        defaults = {"gradient": self.protocol.draws, "stein": STEIN_DRAWS, "curvature": 1}
        return defaults[self.rows] if self.draws is None else self.draws

    @property
    def planned(self) -> int:
        """Refinements at the most."""
        if self.refinements is not None:
            return self.refinements
        return 0 if self.rows == "curvature" else self.protocol.refinements

    @property
    def scale(self) -> str:
        """Length of the rows."""
        return self.protocol.row_scale if self.row_scale == "auto" else self.row_scale

    @property
    def forms(self) -> tuple[RowForm, ...]:
        """Forms of the rows that are tried."""
        if self.rows == "stein":
            return (RowForm(None, None),)
        own = RowForm(None, self.beta(self.surrogate))
        if self.surrogate != "auto" or not self.protocol.several_forms or self.rows == "curvature":
            return (own,)
        score = getattr(self.map, "score", None)
        if score is None:  # a map of the user's own: nothing says how it would look for another score
            return (own,)
        return (own, RowForm(None if score == "softmax" else "softmax", None))

    @property
    def plan(self) -> SearchPlan:
        """The search that these options describe."""
        return SearchPlan(
            self.solver,
            self.steps,
            self.rank,
            self.rows,
            self.scale,
            self.drawn,
            self.clip,
            self.forms,
            self.tried,
            self.planned,
            self.prediction_price,
        )

    def deviation(self, dim: int) -> float:
        """Deviation of Z for images with ``dim`` entries."""
        return default_sigma(self.ball, dim, 0.5) if self.sigma is None else float(self.sigma)

    def fit(
        self,
        loader: Loader,
        *,
        select: Loader | None = None,
        progress: Progress | None = None,
        keep: Path | None = None,
    ) -> Perturbation:
        """Find the perturbation on the images of ``loader``.

        Args:
            loader: Iterable of (images, labels) or of images, in [0, 1].
            select: Held-out images that decide between candidates; the fitting images
                where it is not given. Never the test images.
            progress: Called with (batches done, batches) in each pass; 0 batches where unknown.
            keep: File where the leading vectors of each form, their comparison and each refinement are kept
                while the fit runs. Where one is left of the same fit, cut short, it goes on from there, to
                the same bytes; a pass over the rows that was cut short is repeated.

        Returns:
            The perturbation; its provenance holds the spectrum (leading singular values of
            G / sqrt(n), or square roots of the curvature's eigenvalues), residual, certificate,
            sign and the search. ``flags`` in it says where noise does as well on the select images.

        Raises:
            ArtifactError: What is kept is damaged, or of another fit.
            DataError, ModelError: The images or the model break the contract.
            ZeroGradientError: The rows are exactly zero.
            NonFiniteError: A row has NaN or infinity.
        """
        loader = replayable(loader)
        held_out = None if select is None else replayable(select)
        others = {} if held_out is None else {"select": sketch(held_out)}
        with Steps(self.keeper(keep, loader, **others)) as steps:
            search = RowSearch(self, self.plan, self.deviation, loader, held_out, progress, steps)
            best = search.run()
        noise = search.selection.noise(self.ball, self.seed)
        evidence = self.record(
            loader,
            sigma=search.sigma,
            **spectrum_of(best.result),
            **best.evidence,
            row_form=str(best.form),
            search=search.trail,
            selected_on="fit" if select is None else "select",
            select_images=search.selection.count,
            select_noise=noise,
            flags=_flags(best.score, noise),
        )
        return as_perturbation(best.delta, self.ball, evidence)

    def subspace(self, loader: Loader, k: int, *, progress: Progress | None = None) -> Subspace:
        """The span of the k leading vectors of the rows at delta = 0, of the first form.

        Args:
            loader: As for ``fit``.
            k: Directions, at least 1; at most as many as the rows span.
            progress: As for ``fit``.

        Raises:
            ConfigError: k is out of range, or the solver finds one vector only.
            DataError, ModelError, ZeroGradientError, NonFiniteError: As for ``fit``.
        """
        if self.solver == "power":
            raise ConfigError("the power method finds one vector; use solver='gram' or 'sketch'")
        loader = replayable(loader)
        first = next(samples(loader)).x
        if not 1 <= k <= first[0].numel():
            raise ConfigError(f"k must be between 1 and the {first[0].numel()} numbers of an image, got {k}")
        search = RowSearch(self, self.plan, self.deviation, loader, None, progress)
        result = search.solve(self.forms[0], k)
        vectors = result.vectors[result.values[:k] > RANK * result.values[0]]
        if len(vectors) < k:
            raise ConfigError(f"the rows span {len(vectors)} directions, k = {k} were asked for: more images")
        basis = search.shaped(replace(result, vectors=orthonormal(vectors))).contiguous()
        evidence = self.record(
            loader, sigma=search.sigma, row_form=str(self.forms[0]), residual=result.residual
        )
        values = tuple(result.values[:k].clamp_min(0).sqrt().tolist())
        return Subspace(basis, values, {**evidence, "residual": spectrum_of(result)["residual"]})


def orthonormal(rows: Tensor) -> Tensor:
    """Rows (k, d) made orthonormal to rounding, in their order."""
    basis, signs = torch.linalg.qr(rows.T)
    found: Tensor = basis.T * signs.diagonal().sign()[:, None]
    return found


def spectrum_of(result: EigenResult) -> dict[str, Any]:
    """What a solver says of its result, as plain JSON values."""
    return {
        "spectrum": result.values.clamp_min(0).sqrt().tolist(),
        "residual": None if result.residual != result.residual else result.residual,
        "cosine_bound": result.cosine_bound,
        "converged": result.converged,
        "history": list(result.history),
    }


def _flags(score: float, noise: float) -> list[dict[str, str]]:
    if score > noise:
        return []
    message = (
        f"On the select images the chosen vector ({score:.3f}) does no better than noise of equal norm "
        f"({noise:.3f}): the rows point along directions that the network's maps do not follow."
    )
    return [{"code": "weaker-than-noise-on-select", "message": message}]
