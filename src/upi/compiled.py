"""The whole step of an attack as one compiled graph, with both derivatives inside.

``torch.compile`` of the network alone cannot be differentiated twice. Here the step is first
recorded as a flat list of tensor operations, whatever Python it went through, and that list is
compiled. The first batch is compared with the plain step; batches of another shape (the short last
one) take the plain step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from upi.classifier import Classifier
from upi.fast import TOLERANCE, difference, fall_back
from upi.objective import Gradients, Objective, rise
from upi.types import Batch

Tensors = dict[str, Tensor]
#: Modes of ``torch.compile`` that can be asked for.
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
REMEDY = "compile=False leaves out the attempt"


def _tensors(batch: Batch, perturbed: Tensor) -> Tensors:
    named = {name: getattr(batch, name) for name in ("x", "target", "clean", "margin", "scale")}
    return {"perturbed": perturbed, **{name: value for name, value in named.items() if value is not None}}


def record(model: Classifier, objective: Objective, batch: Batch, perturbed: Tensor) -> Callable[..., Any]:
    """The step on batches of this shape as a graph of tensor operations; weights are constants."""
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    def step(tensors: Tensors) -> tuple[Tensor, Tensor]:
        rest = {name: value for name, value in tensors.items() if name != "perturbed"}
        found = rise(model, objective, Batch(index=0, **rest), tensors["perturbed"])
        return found.values, found.gradient

    graph: Callable[..., Any] = make_fx(step)(_tensors(batch, perturbed))
    return graph


class CompiledRise:
    """``upi.objective.rise``, compiled for the shape of the first batch.

    Args:
        mode: As of ``torch.compile``: ``"default"``, ``"reduce-overhead"`` (CUDA graphs),
            ``"max-autotune"``.
        backend: As of ``torch.compile``.
    """

    def __init__(self, mode: str = "default", *, backend: str = "inductor") -> None:
        self.mode, self.backend = mode, backend
        self.shape: torch.Size | None = None
        self.graph: Callable[..., Any] | None = None

    def __call__(self, model: Classifier, objective: Objective, batch: Batch, perturbed: Tensor) -> Gradients:
        if self.shape is None:
            return self._begin(model, objective, batch, perturbed)
        if self.graph is None or perturbed.shape != self.shape:
            return rise(model, objective, batch, perturbed)
        return self._run(self.graph, batch, perturbed)

    @staticmethod
    @torch.no_grad()
    def _run(graph: Callable[..., Any], batch: Batch, perturbed: Tensor) -> Gradients:
        values, gradient = graph(_tensors(batch, perturbed))
        return Gradients(values.clone(), gradient.clone())  # CUDA graphs reuse their outputs

    def _begin(self, model: Classifier, objective: Objective, batch: Batch, perturbed: Tensor) -> Gradients:
        self.shape = perturbed.shape
        plain = rise(model, objective, batch, perturbed)
        try:
            mode = None if self.mode == "default" else self.mode
            recorded = record(model, objective, batch, perturbed)
            graph = torch.compile(recorded, mode=mode, backend=self.backend, dynamic=False)
            error = difference(plain, self._run(graph, batch, perturbed))
        except Exception as failure:  # compilers fail in many ways; the warning says in which
            fall_back(f"the step could not be compiled: {str(failure).splitlines()[0][:200]}", REMEDY)
            return plain
        if error > TOLERANCE:
            fall_back(f"the compiled attack gradient differs from the plain one by {error:.1%}", REMEDY)
        else:
            self.graph = graph
        return plain
