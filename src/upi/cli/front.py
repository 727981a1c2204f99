"""The command line's front door: help, refusals of options and of places that are taken, before PyTorch is
imported.

The commands are rebuilt from what ``upi.cli.spec`` wrote down of them (``commands.json``): the same typer
options, so the same help and the same refusals, in a tenth of the time. What passes goes on to the real
commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from upi.cli.choices import one_of
from upi.cli.refusals import say
from upi.core.errors import UPIError
from upi.results.place import free_place

SPEC = Path(__file__).parent / "commands.json"
#: Folders of the package whose files declare commands and what their options take.
DECLARING = ("cli/commands", "saliency", "dissimilarity", "attacks", "models", "datasets")
#: Types of options by their names in the file.
TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "Path": Path}


def empty_app() -> typer.Typer:
    """The command line without commands."""
    return typer.Typer(
        name="upi",
        help="Find one fixed pattern that breaks an image classifier's explanations, and measure how badly.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )


class _PassedError(Exception):
    """The options are understood, and the place is free."""


def command_files() -> list[str]:
    """Files that declare commands, and what options take; with others than were written, commands answer."""
    root = Path(__file__).parents[1]
    return sorted(
        str(path.relative_to(root)) for folder in DECLARING for path in (root / folder).glob("*.py")
    )


def _parameter(name: str, words: dict[str, Any]) -> Parameter:
    base = TYPES[words["type"]]
    kind: Any = base
    kind = list[kind] if words["list"] else kind
    kind = kind | None if words["optional"] else kind
    given = {"default": ..., **words["words"]}
    if "choices" in given:
        what, names, others, paths = given.pop("choices")
        given["callback"] = one_of(what, names, others=others, paths=paths)
    info = (ArgumentInfo if words["argument"] else OptionInfo)(**given)
    if words["required"]:
        default = Parameter.empty
    else:
        usual = words["default"]
        default = base(usual) if usual is not None and not words["list"] else usual
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], default=default)


def _command(words: dict[str, Any]) -> Callable[..., None]:
    places = [name for name, each in words["parameters"].items() if "place" in each]

    def passed(**values: Any) -> None:
        try:
            for name in places:
                free_place(values[name], force=values["force"])
        except UPIError as error:
            say(error)
            raise typer.Exit(2) from None
        raise _PassedError

    parameters = [_parameter(name, each) for name, each in words["parameters"].items()]
    passed.__doc__ = words["help"]
    passed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    passed.__annotations__ = {each.name: each.annotation for each in parameters}
    return passed


def door(commands: dict[str, Any]) -> typer.Typer:
    """The command line with commands that do nothing but understand their options and look at their place."""
    app = empty_app()
    for name, words in commands.items():
        app.command(name)(_command(words))
    return app


def check(arguments: Sequence[str]) -> None:
    """Answer a call for help, or one whose options are wrong, and exit; return where there is work to do.

    A call with a file of options is not looked at: the file may hold what is missing.
    """
    if any(word == "--config" or word.startswith("--config=") for word in arguments):
        return
    spec = json.loads(SPEC.read_text())
    known = spec["commands"]
    named = next((word for word in arguments if not word.startswith("-")), None)
    if spec["files"] != command_files():
        return
    if (
        named is not None and named in known
    ):  # the others are for help of the whole command line and for a misspelt name
        known = {name: known[name] for name in (named, _other(known, named))}
    try:
        door(known)(list(arguments), prog_name=Path(sys.argv[0]).name)
    except _PassedError:
        return


def _other(known: dict[str, Any], named: str) -> str:
    """Any further command: typer makes a single one the whole command line."""
    return next(name for name in known if name != named)
