"""How strong a perturbation is, beside controls: metrics, intervals, flags, protocol."""

from upi.evaluation.curve import eps_curve
from upi.evaluation.examples import Example, examples
from upi.evaluation.flags import Flag, origin_flags
from upi.evaluation.intervals import Interval, interval
from upi.evaluation.protocol import evaluate
from upi.evaluation.result import METRICS, Evaluation, Row

__all__ = [
    "METRICS",
    "Evaluation",
    "Example",
    "Flag",
    "Interval",
    "Row",
    "eps_curve",
    "evaluate",
    "examples",
    "interval",
    "origin_flags",
]
