"""The error family: every message says what was expected, what came, and where.

Each class also derives from the built-in a caller would guess (``ValueError``,
``ArithmeticError``, ``OSError``), so code that does not know this library can
still catch it by its usual name.
"""

from __future__ import annotations

from collections.abc import Iterable


class UPIError(Exception):
    """Base of every error this library raises on purpose.

    Attributes:
        options: Names of the options that would mend it, for whoever has words of its own for them, such as
            a command line.
        joint: Whether all workers of a job raised it together.
    """

    joint = False

    def __init__(self, message: str = "", *, options: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.options = tuple(options)


class ConfigError(UPIError, ValueError):
    """An option has a value outside its documented range."""


class DataError(UPIError, ValueError):
    """Images or labels are not what the data contract asks for."""


class ModelError(UPIError, ValueError):
    """A network does not behave like an image classifier with (N, K) logits."""


class ZeroGradientError(UPIError, ArithmeticError):
    """The attack gradient is exactly zero, so no direction can be found."""


class NonFiniteError(UPIError, ArithmeticError):
    """A step produced NaN or infinity; the perturbation was left untouched."""


class MemoryLimitError(UPIError, MemoryError):
    """The memory does not suffice for a single image."""


class WorkerError(UPIError, RuntimeError):
    """A worker of a job on several has ended, or never came."""


class FallbackWarning(UserWarning):
    """A faster way to the same numbers could not be taken."""


class CurvatureWarning(UserWarning):
    """The surrogate leaves some kinks in the network: a part of the curvature is missed."""


class ArtifactError(UPIError, ValueError):
    """A perturbation file is damaged, foreign, or contradicts itself."""


class RunFolderError(UPIError, OSError):
    """A run folder exists already, is incomplete, or cannot be written."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ConfigError:
    """Build the error for a name that is not registered; it lists the known ones."""
    return ConfigError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")
