"""How strong a perturbation is beside controls."""

from upi.evaluation.correlation import Correlation, correlate
from upi.evaluation.curve import eps_curve
from upi.evaluation.examples import Example, compare, examples
from upi.evaluation.flags import Flag, origin_flags
from upi.evaluation.intervals import Interval, interval
from upi.evaluation.protocol import CONTROLS, evaluate
from upi.evaluation.result import METRICS, Evaluation, Row
from upi.evaluation.transfer import matrix, transfer_maps, transfer_models

__all__ = [
    "CONTROLS",
    "METRICS",
    "Correlation",
    "Evaluation",
    "Example",
    "Flag",
    "Interval",
    "Row",
    "compare",
    "correlate",
    "eps_curve",
    "evaluate",
    "examples",
    "interval",
    "matrix",
    "origin_flags",
    "transfer_maps",
    "transfer_models",
]
