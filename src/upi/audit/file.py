"""``audit.toml`` on disk: written with comments, read with the line of every mistake."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import tomlkit
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from upi.audit.settings import DEFAULT_THRESHOLDS, AuditSettings, Threshold
from upi.core.errors import ConfigError
from upi.core.naming import nearest

Place = tuple[str | int, ...]
_HEADER = re.compile(r"^\s*\[(\[)?\s*([\w.\"' -]+?)\s*\]")
_KEY = re.compile(r"^\s*(?P<key>[\w-]+|\"[^\"]*\")\s*=")


def lines_of(text: str) -> dict[Place, int]:
    """The line, from 1, at which each table and key of a TOML text begins.

    Keys of inline tables and entries of arrays are at the line of what holds them.
    """
    found: dict[Place, int] = {}
    table: Place = ()
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            parts: list[str | int] = [part.strip().strip("\"'") for part in header[2].split(".")]
            if header[1]:
                count = seen[header[2]] = seen.get(header[2], -1) + 1
                parts.append(count)
            table = tuple(parts)
            found.setdefault(table, number)
        elif key:
            found.setdefault((*table, key["key"].strip('"')), number)
    return found


def _line(place: Place, lines: Mapping[Place, int]) -> int | None:
    """The line of a place, or of what holds it."""
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return None


def _model_at(place: Place) -> type[BaseModel] | None:
    """The part of the settings that a place lies in."""
    model: Any = AuditSettings
    for step in place:
        if isinstance(step, int):
            continue
        fields: dict[str, FieldInfo] = model.model_fields
        if step not in fields:
            return None
        inner = fields[step].annotation
        model = next((kind for kind in (inner, *get_args(inner)) if isinstance(kind, type)), None)
        if model is None or not issubclass(model, BaseModel):
            return None
    return model if issubclass(model, BaseModel) else None


def _explained(problem: Mapping[str, Any]) -> str:
    """One mistake in words, with the nearest known name."""
    place: Place = tuple(problem["loc"])
    name = ".".join(str(step) for step in place if not isinstance(step, int))
    if problem["type"] == "extra_forbidden":
        model = _model_at(place[:-1])
        known = () if model is None else tuple(model.model_fields)
        return f"unknown key {place[-1]!r}{nearest(str(place[-1]), known)}"
    if problem["type"] == "missing":
        return f"{name} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    shown = json.dumps(problem["input"], default=str)
    given = "" if problem["type"] == "value_error" or len(shown) > 80 else f", got {shown}"
    return f"{name}: {message}{given}" if name else message


def _mistakes(error: ValidationError, where: str, lines: Mapping[Place, int]) -> Iterator[str]:
    for problem in error.errors():
        line = _line(tuple(problem["loc"]), lines)
        place = where if line is None else f"{where}, line {line}"
        yield f"{place}: {_explained(problem)}"


def checked(content: Mapping[str, Any], where: str, text: str = "") -> AuditSettings:
    """Settings from plain values.

    Args:
        content: As read from TOML, or put together from options.
        where: The file's name, for messages.
        text: What it was read from.

    Raises:
        ConfigError: Unknown keys, wrong types, thresholds about what is not measured: each with its line.
    """
    try:
        return AuditSettings.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_mistakes(error, where, lines_of(text)))) from error


def read_text(path: Path) -> tuple[str, dict[str, Any]]:
    """Text and content of a TOML or JSON file; of an audit's config.json, the settings it was run with.

    Raises:
        ConfigError: It cannot be read, or is of neither form; says the line.
    """
    form = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = path.read_text()
        content = json.loads(text) if form == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid {form}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected settings by name, got {type(content).__name__}")
    if form == "JSON" and {"command", "argv"} <= set(content):
        if not isinstance(content.get("audit"), dict):
            raise ConfigError(f"{path}: is of a run of 'upi {content['command']}', not of an audit")
        content = content["audit"]
    return text if form == "TOML" else "", content


def schema() -> dict[str, Any]:
    """The JSON schema of ``audit.toml``, for editors."""
    return AuditSettings.model_json_schema(by_alias=True)


def _commented(table: Any, model: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Fill a table: what has a value is written, what has none stands as a comment."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            section = tomlkit.table()
            section.comment((inner.__doc__ or "").strip())
            _commented(section, inner, values[key])
            table.add(tomlkit.nl())
            table.add(key, section)
        elif key == "threshold":
            continue
        elif values.get(key) is None:
            table.add(tomlkit.comment(f"{key} =    # {field.description}"))
        else:
            item = tomlkit.item(values[key])
            item.comment(str(field.description))
            table.add(key, item)


def initial(model: str, data: str | None = None) -> str:
    """A commented ``audit.toml`` with every key, its default and the default thresholds."""
    images = {} if data is None else {"data": data}
    settings = AuditSettings.model_validate({"network": {"model": model}, "images": images})
    document = tomlkit.document()
    document.add(tomlkit.comment("What 'upi audit' does with this file, and what must hold."))
    document.add(tomlkit.nl())
    _commented(document, AuditSettings, settings.plain())
    thresholds = tomlkit.aot()
    for number, line in enumerate(DEFAULT_THRESHOLDS):
        entry = tomlkit.table()
        for key, value in line.model_dump(exclude_none=True).items():
            item = tomlkit.item(value)
            if number == 0:
                item.comment(str(Threshold.model_fields[key].description))
            entry.add(key, item)
        thresholds.append(entry)
    document.add(tomlkit.nl())
    document.add("threshold", thresholds)
    return tomlkit.dumps(document)
