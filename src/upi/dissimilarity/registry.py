"""Dissimilarities by name: a module of this package that declares one is all that a new one takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from upi.core.registry import Registry

DISSIMILARITIES: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry("dissimilarity", "upi.dissimilarity")
