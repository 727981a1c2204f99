"""Attacks by name: a module of this package that declares one is all that a new attack takes.

An example::

    @declare(RowStyle("my-attack", "my attack", "#0369a1"), order=4, options=("steps", "clip"))
    @dataclass(frozen=True)
    class MyAttack(Attack): ...

``upi fit``, tables, figures and the contract tests find it by its row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from upi.core.registry import Registry
from upi.core.rows import ROWS, RowStyle

if TYPE_CHECKING:
    from upi.attacks.base import Attack

A = TypeVar("A", bound="type[Attack]")
ATTACKS: Registry[type[Attack]] = Registry("attack", "upi.attacks")


def declare(row: RowStyle, *, order: int = 100, options: tuple[str, ...] | None = None) -> Callable[[A], A]:
    """Declare an attack under the name of its row.

    Args:
        row: How its row is called and shown.
        order: Place in tables.
        options: Options of a study (``upi.experiments.study.Spec``) that its constructor takes beside the
            map, the ball and the seed; None for attacks that ``upi fit`` does not offer, because nothing is
            fitted.
    """

    def found(attack: A) -> A:
        ROWS.setdefault(row.name, row)
        ATTACKS.add(row.name, row.title, order=order, options=options)(attack)
        return attack

    return found


def fitted() -> tuple[str, ...]:
    """Names of the attacks that are fitted ahead of the images, in the order of tables."""
    return tuple(entry.name for entry in ATTACKS.entries() if entry.facts["options"] is not None)
