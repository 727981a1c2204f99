"""Leading eigenvectors of operators; knows no network."""

from upi.linalg.difference import Difference, MatrixDifference
from upi.linalg.gram import gram
from upi.linalg.krylov import krylov
from upi.linalg.operator import MatrixRows, Operator, RowOperator, Term, follow
from upi.linalg.power import power
from upi.linalg.result import EigenResult
from upi.linalg.sketch import FrequentDirections, sketch

__all__ = [
    "Difference",
    "EigenResult",
    "FrequentDirections",
    "MatrixDifference",
    "MatrixRows",
    "Operator",
    "RowOperator",
    "Term",
    "follow",
    "gram",
    "krylov",
    "power",
    "sketch",
]
