"""The whole step of an attack as one graph, with both derivatives inside: compiled, or captured on a GPU.

``torch.compile`` of the network alone cannot be differentiated twice. Here the step is first
recorded as a flat list of tensor operations, whatever Python it went through, and that list is
compiled. Or the plain step's kernels are captured as they are launched, and launched again as one CUDA graph:
nothing is compiled, and nothing waits for Python. The first batch is compared with the plain step; batches of
another shape (the short last one) take the plain step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from upi.attacks.support.gradient_check import TOLERANCE, difference, fall_back
from upi.attacks.support.gradients import Gradients, attack_gradient
from upi.attacks.support.objective import Explained, Objective
from upi.core.distributed import team
from upi.core.errors import first_line
from upi.data.batches import Batch

Tensors = dict[str, Tensor]
Shape = tuple[torch.Size, frozenset[str]]
#: The step captured as a CUDA graph, without a compiler.
CAPTURED = "cuda-graph"
#: The captured step on a GPU where it can be captured and this process works alone; else the plain one.
AUTO = "auto"
#: Modes that can be asked for: those of ``torch.compile``, and the captured step.
MODES = (AUTO, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs", CAPTURED)
#: Steps before the capture, in which libraries choose algorithms and take their working memory.
WARM_UP = 1
REMEDY = "compile=False leaves out the attempt"


def _tensors(batch: Batch, perturbed: Tensor) -> Tensors:
    named = {name: getattr(batch, name) for name in ("x", "target", "clean", "margin", "scale")}
    return {"perturbed": perturbed, **{name: value for name, value in named.items() if value is not None}}


def _shape(batch: Batch, perturbed: Tensor) -> Shape:
    """What a graph was recorded for: the images' shape, and which tensors a batch carries."""
    return perturbed.shape, frozenset(_tensors(batch, perturbed))


#: Tensors of a batch to values (N,) and gradients (N, C, H, W).
Step = Callable[[Tensors], tuple[Tensor, Tensor]]


def step_of(model: Explained, objective: Objective) -> Step:
    """The plain step as a function of tensors alone."""

    def step(tensors: Tensors) -> tuple[Tensor, Tensor]:
        rest = {name: value for name, value in tensors.items() if name != "perturbed"}
        found = attack_gradient(model, objective, Batch(index=0, piece=0, **rest), tensors["perturbed"])
        return found.values, found.gradient

    return step


def captured(step: Step, tensors: Tensors) -> Step:
    """The step's kernels as one CUDA graph for tensors of these shapes.

    What it returns lies where the next call writes. The graph knows weights by their place in memory: it is
    good while the network is held as it was, no longer.
    """
    device = tensors["perturbed"].device
    if device.type != "cuda":
        raise ValueError(f"CUDA graphs need the network on a CUDA device, it is on {device}")
    held = {name: value.clone() for name, value in tensors.items()}
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                step(held)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may do as they like
            found = step(held)

    def again(given: Tensors) -> tuple[Tensor, Tensor]:
        for name, value in given.items():
            held[name].copy_(value)
        graph.replay()
        return found

    return again


def record(model: Explained, objective: Objective, batch: Batch, perturbed: Tensor) -> Callable[..., Any]:
    """The step on batches of this shape as a graph of tensor operations; weights are constants."""
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    graph: Callable[..., Any] = make_fx(step_of(model, objective))(_tensors(batch, perturbed))
    return graph


class CompiledGradient:
    """``upi.attacks.support.gradients.attack_gradient``, compiled for the shape of the first batch.

    One object serves any number of fits of the same attack: after ``again()`` the next batch is
    compared with the plain step once more, and the step compiled anew if the network has changed.

    Args:
        mode: As of ``torch.compile``: ``"default"``, ``"reduce-overhead"`` (compiled, in CUDA graphs),
            ``"max-autotune"``; or ``"cuda-graph"``, the plain step captured anew for each fit; or ``"auto"``,
            that on a GPU and the plain step elsewhere, without a word.
        backend: As of ``torch.compile``.
    """

    def __init__(self, mode: str = "default", *, backend: str = "inductor") -> None:
        self.mode, self.backend = mode, backend
        self.shape: Shape | None = None
        self.graph: Callable[..., Any] | None = None
        self.checked = False

    def again(self) -> CompiledGradient:
        """For another fit: itself, about to compare its next step with the plain one.

        A captured step is not kept: weights may lie elsewhere by then, and it holds a step's memory.
        """
        if self.mode in (AUTO, CAPTURED):
            return CompiledGradient(self.mode)
        self.checked = False
        return self

    def __call__(self, model: Explained, objective: Objective, batch: Batch, perturbed: Tensor) -> Gradients:
        if self.mode == AUTO and (perturbed.device.type != "cuda" or team().size > 1):
            return attack_gradient(model, objective, batch, perturbed)
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

    def _made(
        self, model: Explained, objective: Objective, batch: Batch, perturbed: Tensor
    ) -> Callable[..., Any]:
        if self.mode in (AUTO, CAPTURED):
            return captured(step_of(model, objective), _tensors(batch, perturbed))
        mode = None if self.mode == "default" else self.mode
        recorded = record(model, objective, batch, perturbed)
        made: Callable[..., Any] = torch.compile(recorded, mode=mode, backend=self.backend, dynamic=False)
        return made

    def _check(self, model: Explained, objective: Objective, batch: Batch, perturbed: Tensor) -> Gradients:
        """The plain step, beside which the compiled one is kept, made, or given up."""
        self.checked = True
        plain = attack_gradient(model, objective, batch, perturbed)
        if self.graph is not None and difference(plain, self._run(self.graph, batch, perturbed)) <= TOLERANCE:
            return plain
        self.graph = None
        try:
            graph = self._made(model, objective, batch, perturbed)
            error = difference(plain, self._run(graph, batch, perturbed))
        except Exception as failure:  # compilers fail in many ways; the warning says in which
            self._given_up(f"the step could not be compiled: {first_line(failure)[:200]}")
            return plain
        if error > TOLERANCE:
            self._given_up(f"the compiled attack gradient differs from the plain one by {error:.1%}")
        else:
            self.graph = graph
        return plain

    def _given_up(self, reason: str) -> None:
        """A warning where the graph was asked for; by itself it is only an attempt."""
        if self.mode != AUTO:
            fall_back(reason, REMEDY)
