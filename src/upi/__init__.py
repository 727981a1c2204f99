"""upi: universal adversarial perturbations against explanations of image classifiers.

One norm-bounded perturbation, fixed in advance and added to every image, can wreck an
image classifier's gradient saliency maps (Ehsani Oskouie and Farnia, ICASSP 2023). This
library finds it (``UPIGrad``, ``UPIPCA``), measures it beside fair controls
(``evaluate``), and keeps the result in a file that is safe to share (``Perturbation``).

    model = upi.Classifier(net, mean=(0.5,), std=(0.5,))
    attack = upi.UPIGrad(model, saliency="gradient", norm="l2", eps=2.0)
    perturbation = attack.fit(loader)
    result = upi.evaluate(model, {"upi-grad": perturbation}, test_loader)

Importing this module costs next to nothing: torch, NumPy, SciPy and safetensors, all it ever needs, are
imported with the first name that is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from upi.moved import install

if TYPE_CHECKING:
    from upi import (
        adapters as adapters,
        attacks as attacks,
        audit as audit,
        core as core,
        data as data,
        datasets as datasets,
        dissimilarity as dissimilarity,
        evaluation as evaluation,
        experiments as experiments,
        linalg as linalg,
        models as models,
        network as network,
        perturbation as perturbation,
        report as report,
        results as results,
        saliency as saliency,
    )
    from upi.attacks import UPIPCA, ClassUAP, OneStepAttack, PerImageAttack, RandomPerturbation, UPIGrad
    from upi.core import errors
    from upi.core.errors import UPIError
    from upi.evaluation import Evaluation, evaluate
    from upi.network.classifier import Classifier
    from upi.perturbation.ball import Ball
    from upi.perturbation.pattern import Perturbation
    from upi.perturbation.subspace import Subspace

    __version__: str

#: Where each public name lives; it is imported, and PyTorch with it, when it is asked for first.
_HOMES = {
    "UPIPCA": "attacks",
    "Ball": "perturbation.ball",
    "ClassUAP": "attacks",
    "Classifier": "network.classifier",
    "Evaluation": "evaluation",
    "OneStepAttack": "attacks",
    "PerImageAttack": "attacks",
    "Perturbation": "perturbation.pattern",
    "RandomPerturbation": "attacks",
    "Subspace": "perturbation.subspace",
    "UPIError": "core.errors",
    "UPIGrad": "attacks",
    "evaluate": "evaluation",
}
#: What is reached as an attribute of ``upi``, and where it lives.
_MODULES = {
    "errors": "core.errors",
    **{
        name: name
        for name in (
            "adapters",
            "attacks",
            "audit",
            "core",
            "data",
            "datasets",
            "dissimilarity",
            "evaluation",
            "experiments",
            "linalg",
            "models",
            "network",
            "perturbation",
            "report",
            "results",
            "saliency",
        )
    },
}

install()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        found: Any = import_module("upi.core.version").library_version()
    elif name in _HOMES:
        found = getattr(import_module(f"upi.{_HOMES[name]}"), name)
    elif name in _MODULES:
        found = import_module(f"upi.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'upi' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


__all__ = [
    "UPIPCA",
    "Ball",
    "ClassUAP",
    "Classifier",
    "Evaluation",
    "OneStepAttack",
    "PerImageAttack",
    "Perturbation",
    "RandomPerturbation",
    "Subspace",
    "UPIError",
    "UPIGrad",
    "__version__",
    "dissimilarity",
    "errors",
    "evaluate",
    "saliency",
]
