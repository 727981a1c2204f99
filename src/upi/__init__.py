"""upi: universal adversarial perturbations against explanations of image classifiers.

One norm-bounded perturbation, fixed in advance and added to every image, can wreck an
image classifier's gradient saliency maps (Ehsani Oskouie and Farnia, ICASSP 2023). This
library finds it (``UPIGrad``, ``UPIPCA``), measures it beside fair controls
(``evaluate``), and keeps the result in a file that is safe to share (``Perturbation``).

    model = upi.Classifier(net, mean=(0.5,), std=(0.5,))
    attack = upi.UPIGrad(model, saliency="gradient", norm="l2", eps=2.0)
    perturbation = attack.fit(loader)
    result = upi.evaluate(model, {"upi-grad": perturbation}, test_loader)

Importing this module needs torch, NumPy, SciPy and safetensors, nothing else.
"""

from upi import dissimilarity, saliency
from upi.attacks import UPIPCA, ClassUAP, OneStepAttack, PerImageAttack, RandomPerturbation, UPIGrad
from upi.core import errors
from upi.core.errors import UPIError
from upi.core.version import library_version
from upi.evaluation import Evaluation, evaluate
from upi.moved import install
from upi.network.classifier import Classifier
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation
from upi.perturbation.subspace import Subspace

__version__ = library_version()
install()

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
