"""The error family: built-in names, and the options that would mend."""

from __future__ import annotations

import pytest

from upi.core import errors
from upi.core.errors import UPIError

FAMILY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UPIError)]


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_says_its_message_and_keeps_its_options(kind: type[UPIError]) -> None:
    error = kind("what came", options=("data_dir", "weights"))
    assert str(error) == "what came"
    assert error.options == ("data_dir", "weights")
    assert kind("what came").options == ()


@pytest.mark.parametrize(
    ("kind", "usual"),
    [
        (errors.ConfigError, ValueError),
        (errors.RunFolderError, OSError),
        (errors.NonFiniteError, ArithmeticError),
    ],
)
def test_errors_are_caught_by_their_usual_names(kind: type[UPIError], usual: type[Exception]) -> None:
    with pytest.raises(usual, match="what came"):
        raise kind("what came", options=("out",))
