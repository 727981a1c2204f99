"""Groups of options, declared once and expanded into the commands that take them.

A command is a function whose parameters may be groups; on the command line each field of a group is an
option of its own, and the function gets the groups whole and validated.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge
from pydantic import BaseModel, ConfigDict
from typer.models import OptionInfo

from upi.cli.record import job_of, running
from upi.core.distributed import require_same
from upi.core.keeping import difference


class OptionGroup(BaseModel):
    """Options that belong together; fields carry ``typer.Option`` in their annotation.

    Attributes:
        panel: Head of the group in the command's help.
    """

    panel: ClassVar[str] = "Options"
    model_config = ConfigDict(extra="forbid", frozen=True)


class Defaults:
    """Other defaults of a group for one command: ``Annotated[DataOptions, Defaults(n_test=0)]``."""

    def __init__(self, **values: Any) -> None:
        self.values = values


def _group_of(hint: Any) -> tuple[type[OptionGroup] | None, dict[str, Any]]:
    """The group that a parameter's annotation names, and the defaults it asks for."""
    kind, values = hint, dict[str, Any]()
    if get_origin(hint) is Annotated:
        kind, *extra = get_args(hint)
        values = next((item.values for item in extra if isinstance(item, Defaults)), values)
    is_group = isinstance(kind, type) and issubclass(kind, OptionGroup)
    return (kind if is_group else None), values


def _options(group: type[OptionGroup], defaults: dict[str, Any]) -> list[Parameter]:
    """A parameter for each field of a group."""
    hints = get_type_hints(group, include_extras=True)
    parameters = []
    for name, field in group.model_fields.items():
        own = Parameter.empty if field.is_required() else field.default
        default = defaults.get(name, own)
        for extra in get_args(hints[name]):
            if isinstance(extra, OptionInfo):
                extra.rich_help_panel = group.panel
                extra.min = next((each.ge for each in field.metadata if isinstance(each, Ge)), extra.min)  # type: ignore[assignment]
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[name]))
    return parameters


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its groups in their place.

    Raises:
        TypeError: Two groups have an option of one name.
    """
    hints = get_type_hints(command, include_extras=True)
    context = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters: dict[str, Parameter] = {"context": context}
    groups: dict[str, type[OptionGroup]] = {}
    for name, parameter in signature(command).parameters.items():
        group, defaults = _group_of(hints[name])
        if group is not None:
            groups[name] = group
        for option in [parameter] if group is None else _options(group, defaults):
            if option.name in parameters:
                raise TypeError(f"{command.__name__}: two options are called {option.name}")
            annotation = hints[name] if group is None else option.annotation
            parameters[option.name] = option.replace(kind=Parameter.KEYWORD_ONLY, annotation=annotation)

    @wraps(command)
    def called(**given: Any) -> None:
        whole = {
            name: group(**{field: given.pop(field) for field in group.model_fields})
            for name, group in groups.items()
        }
        with running(given.pop("context")) as context:
            require_same("set of options", json.dumps(job_of(context), sort_keys=True), difference)
            command(**whole, **given)

    called.__signature__ = signature(command).replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    called.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return called
