"""Attacks and controls; all share the constructor's first words and one ascent loop."""

from upi.attacks.base import PRESETS, SURROGATE_BETA, Attack
from upi.attacks.class_uap import ClassUAP
from upi.attacks.one_step import OneStepAttack
from upi.attacks.per_image import PerImageAttack
from upi.attacks.random import RandomPerturbation
from upi.attacks.upi_grad import UPIGrad
from upi.attacks.upi_pca import UPIPCA

__all__ = [
    "PRESETS",
    "SURROGATE_BETA",
    "UPIPCA",
    "Attack",
    "ClassUAP",
    "OneStepAttack",
    "PerImageAttack",
    "RandomPerturbation",
    "UPIGrad",
]
