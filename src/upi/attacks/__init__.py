"""Attacks and controls on one ascent loop and one objective."""

from upi.attacks.base import Attack
from upi.attacks.class_uap import ClassUAP
from upi.attacks.one_step import OneStepAttack
from upi.attacks.per_image import PerImageAttack
from upi.attacks.protocol import PAPER, PROTOCOL, PROTOCOLS, Protocol
from upi.attacks.random import RandomPerturbation
from upi.attacks.registry import ATTACKS
from upi.attacks.upi_grad import UPIGrad
from upi.attacks.upi_pca import UPIPCA
from upi.network.smooth import SURROGATE_BETA

#: Names of the protocols, as version 0.1 named them.
PRESETS = tuple(PROTOCOLS)

__all__ = [
    "ATTACKS",
    "PAPER",
    "PRESETS",
    "PROTOCOL",
    "PROTOCOLS",
    "SURROGATE_BETA",
    "UPIPCA",
    "Attack",
    "ClassUAP",
    "OneStepAttack",
    "PerImageAttack",
    "Protocol",
    "RandomPerturbation",
    "UPIGrad",
]
