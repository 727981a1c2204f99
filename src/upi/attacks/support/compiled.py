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

from upi.attacks.support.gradient_check import TOLERANCE, difference, fall_back
from upi.attacks.support.gradients import Gradients, attack_gradient
from upi.attacks.support.objective import Explained, Objective
from upi.data.batches import Batch

Tensors = dict[str, Tensor]
Shape = tuple[torch.Size, frozenset[str]]
#: Modes of ``torch.compile`` that can be asked for.
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
REMEDY = "compile=False leaves out the attempt"


def _tensors(batch: Batch, perturbed: Tensor) -> Tensors:
    named = {name: getattr(batch, name) for name in ("x", "target", "clean", "margin", "scale")}
    return {"perturbed": perturbed, **{name: value for name, value in named.items() if value is not None}}


def _shape(batch: Batch, perturbed: Tensor) -> Shape:
    """What a graph was recorded for: the images' shape, and which tensors a batch carries."""
    return perturbed.shape, frozenset(_tensors(batch, perturbed))


def record(model: Explained, objective: Objective, batch: Batch, perturbed: Tensor) -> Callable[..., Any]:
    """The step on batches of this shape as a graph of tensor operations; weights are constants."""
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    def step(tensors: Tensors) -> tuple[Tensor, Tensor]:
        rest = {name: value for name, value in tensors.items() if name != "perturbed"}
        found = attack_gradient(model, objective, Batch(index=0, piece=0, **rest), tensors["perturbed"])
        return found.values, found.gradient

    graph: Callable[..., Any] = make_fx(step)(_tensors(batch, perturbed))
    return graph


class CompiledGradient:
    """``upi.attacks.support.gradients.attack_gradient``, compiled for the shape of the first batch.

    One object serves any number of fits of the same attack: after ``again()`` the next batch is
    compared with the plain step once more, and the step compiled anew if the network has changed.

    Args:
        mode: As of ``torch.compile``: ``"default"``, ``"reduce-overhead"`` (CUDA graphs),
            ``"max-autotune"``.
        backend: As of ``torch.compile``.
    """

    def __init__(self, mode: str = "default", *, backend: str = "inductor") -> None:
        self.mode, self.backend = mode, backend
        self.shape: Shape | None = None
        self.graph: Callable[..., Any] | None = None
        self.checked = False

    def again(self) -> CompiledGradient:
        """Itself, about to compare its next step with the plain one."""
        self.checked = False
        return self

    def __call__(self, model: Explained, objective: Objective, batch: Batch, perturbed: Tensor) -> Gradients:
        shape = _shape(batch, perturbed)
        if self.shape is None:
            self.shape = shape
        if shape != self.shape or (self.checked and self.graph is None):
            return attack_gradient(model, objective, batch, perturbed)
        if not self.checked:
            return self._check(model, objective, batch, perturbed)
        assert self.graph is not None
        return self._run(self.graph, batch, perturbed)

    @staticmethod
    @torch.no_grad()
    def _run(graph: Callable[..., Any], batch: Batch, perturbed: Tensor) -> Gradients:
        with torch.compiler.set_stance("default"):  # around it the network's own compiled parts run eagerly
            values, gradient = graph(_tensors(batch, perturbed))
        return Gradients(values.clone(), gradient.clone())  # CUDA graphs reuse their outputs

    def _check(self, model: Explained, objective: Objective, batch: Batch, perturbed: Tensor) -> Gradients:
        """The plain step, beside which the compiled one is kept, made, or given up."""
        self.checked = True
        plain = attack_gradient(model, objective, batch, perturbed)
        if self.graph is not None and difference(plain, self._run(self.graph, batch, perturbed)) <= TOLERANCE:
            return plain
        self.graph = None
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
