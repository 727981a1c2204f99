"""What a network returns, as logits (N, K): a tensor, or what holds one under a name that says so.

Libraries wrap logits: transformers in objects, segmentation and detection code in dictionaries, networks with
auxiliary heads in tuples. A name is found by itself; what only has places is not guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from upi.core.errors import ModelError

#: Names that logits go by, in the order in which they are looked for.
NAMES = ("logits", "class_logits", "cls_logits", "scores", "out", "output")
#: Where logits are: a name, a place, a function of the output, or None to look for a name.
Where = str | int | Callable[[Any], Any] | None


def place_of(text: str | None) -> str | int | None:
    """A place of the logits as users write it: digits are a number, all else a name."""
    return int(text) if text is not None and text.isdecimal() else text


def _named(output: Any, name: str | int) -> Any:
    if isinstance(output, Mapping) or isinstance(name, int):
        return output[name]
    return getattr(output, name)


def _found(output: Any) -> Any:
    """The first of ``NAMES`` that the output has; the output itself where it has none."""
    if isinstance(output, Tensor):
        return output
    for name in NAMES:
        if isinstance(output, Mapping) and name in output:
            return output[name]
        if not isinstance(output, Mapping) and isinstance(getattr(output, name, None), Tensor):
            return getattr(output, name)
    return output


def _shown(output: Any) -> str:
    """An output's form in a few words."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    kind = type(output).__name__
    if isinstance(output, Mapping):
        inner = [f"{key!r}: {_shape(value)}" for key, value in list(output.items())[:6]]
        return f"{kind} with {{{', '.join(inner)}}}"
    if isinstance(output, (tuple, list)):
        return f"{kind} of ({', '.join(_shape(value) for value in output[:6])})"
    return kind


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def is_binary(output: Any, logits: Tensor) -> bool:
    """Whether logits are [0, z] of one logit an image, which no output of two or more is."""
    return (
        logits.shape[1] == 2
        and not (isinstance(output, Tensor) and output.shape == logits.shape)
        and bool((logits[:, 0] == 0).all())
    )


def logits_of(output: Any, where: Where, count: int) -> Tensor:
    """Logits (N, K), K >= 2, from what a network returned for ``count`` images.

    One logit an image, (N, 1) or (N,), is that of a binary network: classes 0 and 1 with logits [0, z].

    Args:
        output: As returned.
        where: See ``Where``.
        count: The number N of images.

    Raises:
        ModelError: There are none; the message holds the line of code that helps.
    """
    try:
        found = (
            where(output) if callable(where) else _found(output) if where is None else _named(output, where)
        )
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ModelError(
            f"the model's output has no {where!r}: it returned {_shown(output)} "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(found, Tensor):
        raise ModelError(
            f"expected logits of shape (N, K) = ({count}, K), the model returned {_shown(output)}; say where "
            "they are: upi.Classifier(model, output='NAME'), output=0 for the first of a tuple, or "
            "output=lambda out: ..."
        )
    if found.ndim == 1 and len(found) == count:
        found = found[:, None]
    if found.ndim != 2 or found.shape[0] != count:
        flatten = "; average over positions: output=lambda out: out.mean((2, 3))" if found.ndim == 4 else ""
        raise ModelError(
            f"expected logits of shape (N, K) = ({count}, K), the model returned {_shown(output)}{flatten}"
        )
    if not found.is_floating_point():
        raise ModelError(f"expected floating-point logits, the model returned {found.dtype}")
    if found.shape[1] == 0:
        raise ModelError(f"expected at least 1 logit, the model returned {tuple(found.shape)}")
    return torch.cat([torch.zeros_like(found), found], 1) if found.shape[1] == 1 else found
