"""What the command line's front door knows of the commands: python -m upi.cli.spec writes it down.

To be done again whenever an option, its default or its help changes; a test says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from upi.cli.choices import FreePlace
from upi.cli.front import SPEC, TYPES, command_files
from upi.cli.registry import COMMANDS
from upi.core.storage import write_atomic


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _words(info: ParameterInfo) -> dict[str, Any]:
    """What an option was declared with, as far as it is not usual; of callbacks only ``one_of`` goes along.

    ``default`` is where typer keeps the first of an option's own names.
    """
    usual = vars(type(info)(default=...))
    skipped = ("callback", "is_eager")
    choices = getattr(info.callback, "choices", None)
    own = {key: value for key, value in vars(info).items() if key not in skipped and value != usual[key]}
    return {key: _plain(value) for key, value in own.items()} | (
        {"choices": _plain(choices)} if choices else {}
    )


def _parameter(parameter: Parameter) -> dict[str, Any]:
    hint, *extras = get_args(parameter.annotation)
    info = next(each for each in extras if isinstance(each, (OptionInfo, ArgumentInfo)))
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    optional = type(None) in parts
    kind = next(part for part in parts if part is not type(None))
    several = get_origin(kind) is list
    base = get_args(kind)[0] if several else kind
    required = parameter.default is Parameter.empty
    return {
        "type": next(name for name, each in TYPES.items() if each is base),
        "list": several,
        "optional": optional,
        "argument": isinstance(info, ArgumentInfo),
        "required": required,
        **({"place": True} if any(isinstance(each, FreePlace) for each in extras) else {}),
        "default": None if required else _plain(parameter.default),
        "words": _words(info),
    }


def spec() -> dict[str, Any]:
    """Every command with its help and its options, as plain JSON values."""
    return {
        "files": command_files(),
        "commands": {name: _command(function) for name, function in COMMANDS.items()},
    }


def _command(function: Callable[..., None]) -> dict[str, Any]:
    parameters = signature(function).parameters
    return {
        "help": function.__doc__,
        "parameters": {name: _parameter(each) for name, each in parameters.items() if name != "context"},
    }


def text() -> str:
    """The content of the file."""
    return json.dumps(spec(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_atomic(SPEC, text())
