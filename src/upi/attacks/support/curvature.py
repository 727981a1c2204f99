"""The curvature of the map change around delta = 0, as an operator of ``linalg``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from upi import dissimilarity as dissimilarities
from upi.attacks.support.gradients import images_at_once, require_gradient
from upi.attacks.support.objective import split
from upi.attacks.support.rows import ExplainedImages
from upi.core.averaging import summed
from upi.core.distributed import jointly
from upi.core.errors import ConfigError, NonFiniteError
from upi.core.types import Dissimilarity
from upi.data.batches import Batch, Share
from upi.linalg import Operator, Term


def _squared_relative_l2(clean: Tensor, perturbed: Tensor) -> Tensor:
    return dissimilarities.squared_l2(clean, perturbed) / dissimilarities.squared_l2(clean, 0 * clean)


def _squared_mass_center(clean: Tensor, perturbed: Tensor) -> Tensor:
    offset = dissimilarities.mass_center_offset(clean, perturbed)
    return offset.square().sum(1)


def quadratic_form(dissimilarity: Dissimilarity) -> Dissimilarity:
    """A form of D that is smooth with zero gradient at equal maps: D itself, or its square.

    Raises:
        ConfigError: D has no such form (top-k, target map).
    """
    if dissimilarity is dissimilarities.relative_l2:
        return _squared_relative_l2
    if dissimilarity is dissimilarities.mass_center:
        return _squared_mass_center
    if dissimilarity is dissimilarities.top_k or isinstance(dissimilarity, dissimilarities.TargetMap):
        name = dissimilarities.name_of(dissimilarity)
        raise ConfigError(f"{name} has no curvature at equal maps; use rows='gradient' or another one")
    return dissimilarity


class CurvatureOperator(Operator):
    """The mean over images of J_i^T M_i J_i: how sharply D rises around delta = 0.

    J_i is the Jacobian of delta -> I(x_i + delta), M_i the Hessian of D in its second map.
    No smoothing noise is involved. One application costs a product with J and one with
    J^T per image; the graph is built once per batch.
    """

    def __init__(self, images: ExplainedImages) -> None:
        self.images = images
        self.form = quadratic_form(images.objective.dissimilarity)
        self.dim = images.dim

    def _hessian(self, clean: Tensor, tangent: Tensor) -> Tensor:
        maps = clean.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.form(clean, maps).sum(), maps, create_graph=True)
        (product,) = torch.autograd.grad(slope, maps, tangent)
        return product

    def _products(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """(d, k) to the sum of the products of a piece's images: by one graph, which stays, or where that is
        too large by those of some images at a time, made anew for each block."""
        size = images_at_once(self.images.objective, batch.x, least=len(batch))
        if size >= len(batch):
            return self._product(batch)
        return lambda block: torch.stack(
            [self._product(some)(block) for some in split(batch, size, None)]
        ).sum(0)

    def _product(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """The same by one graph of all of them."""
        point = batch.x.clone().requires_grad_()
        with torch.enable_grad():
            maps = self.images.objective.saliency(self.images.surrogate, point, batch.target)
            maps = maps + 0 * point.sum()  # a map that does not move still has a (zero) Jacobian
            dual = torch.zeros_like(maps, requires_grad=True)
            (pulled,) = torch.autograd.grad(maps, point, dual, create_graph=True)

        def product(vector: Tensor) -> Tensor:
            shift = vector.to(point).view(1, *point.shape[1:]).expand_as(point)
            (tangent,) = torch.autograd.grad(
                pulled, dual, shift, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            with torch.enable_grad():
                weight = self._hessian(batch.clean, tangent)
            (back,) = torch.autograd.grad(maps, point, weight, retain_graph=True)
            return back.sum(0).flatten().double().cpu()

        return lambda block: torch.stack([product(v) for v in block.T], 1)

    def _term(self, share: Share) -> Term:
        graphs = jointly(lambda: {batch.piece: self._products(batch) for batch in share.pieces})

        def matmat(block: Tensor) -> Tensor:
            return summed(share, lambda batch: [graphs[batch.piece](block)], [torch.zeros_like(block)])[0]

        return Term(matmat, share.count)

    def terms(self) -> Iterator[Term]:
        for share in self.images.shares():
            yield self._term(share)

    def matmat(self, block: Tensor) -> Tensor:
        """The operator applied to (d, k).

        Raises:
            ZeroGradientError: The maps do not move to second order at all.
            NonFiniteError: The product has NaN or infinity.
        """
        product = super().matmat(block)
        if not bool(torch.isfinite(product).all()):
            raise NonFiniteError("curvature operator: NaN or infinity")
        require_gradient(product, where="curvature operator")
        return product
