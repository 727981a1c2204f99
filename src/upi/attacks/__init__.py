"""Attacks and controls on one ascent loop and one objective."""

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
