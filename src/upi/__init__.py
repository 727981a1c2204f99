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
    )
    from upi import (
        attacks as attacks,
    )
    from upi import (
        audit as audit,
    )
    from upi import (
        core as core,
    )
    from upi import (
        data as data,
    )
    from upi import (
        datasets as datasets,
    )
    from upi import (
        dissimilarity as dissimilarity,
    )
    from upi import (
        evaluation as evaluation,
    )
    from upi import (
        experiments as experiments,
    )
    from upi import (
        linalg as linalg,
    )
    from upi import (
        models as models,
    )
    from upi import (
        network as network,
    )
    from upi import (
        perturbation as perturbation,
    )
    from upi import (
        report as report,
    )
    from upi import (
        results as results,
    )
    from upi import (
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
    "errors": "core",
    "evaluate": "evaluation",
}
_PACKAGES = (
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

install()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        found: Any = import_module("upi.core.version").library_version()
    elif name in _HOMES:
        home = import_module(f"upi.{_HOMES[name]}")
        found = import_module("upi.core.errors") if name == "errors" else getattr(home, name)
    elif name in _PACKAGES:
        found = import_module(f"upi.{name}")
    else:
        raise AttributeError(f"module 'upi' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})


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
