"""The pattern added to images, its ball, file and subspace."""

from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation
from upi.perturbation.subspace import Subspace

__all__ = ["Ball", "Perturbation", "Subspace"]
