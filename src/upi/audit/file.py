"""``audit.toml`` on disk: written with comments, read with the line of every mistake."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomlkit
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from upi.audit.settings import DEFAULT_THRESHOLDS, AuditSettings, Threshold
from upi.audit.sweep import NamedNetwork, SweepSettings
from upi.core.errors import ConfigError
from upi.core.naming import nearest

Place = tuple[str | int, ...]
S = TypeVar("S", bound=AuditSettings)
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


def _model_at(place: Place, whole: type[BaseModel]) -> type[BaseModel] | None:
    """The part of the settings that a place lies in."""
    model: Any = whole
    for step in place:
        if isinstance(step, int):
            continue
        fields: dict[str, FieldInfo] = model.model_fields
        if step not in fields:
            return None
        inner = fields[step].annotation
        model = next((kind for kind in (*get_args(inner), inner) if isinstance(kind, type)), None)
        if model is None or not issubclass(model, BaseModel):
            return None
    return model if issubclass(model, BaseModel) else None


def _explained(problem: Mapping[str, Any], whole: type[BaseModel]) -> str:
    """One mistake in words, with the nearest known name."""
    place: Place = tuple(problem["loc"])
    name = ".".join(str(step) for step in place if not isinstance(step, int))
    if problem["type"] == "extra_forbidden":
        model = _model_at(place[:-1], whole)
        known = () if model is None else tuple(model.model_fields)
        return f"unknown key {place[-1]!r}{nearest(str(place[-1]), known)}"
    if problem["type"] == "missing":
        return f"{name} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    shown = json.dumps(problem["input"], default=str)
    given = "" if problem["type"] == "value_error" or len(shown) > 80 else f", got {shown}"
    return f"{name}: {message}{given}" if name else message


def _mistakes(
    error: ValidationError, where: str, lines: Mapping[Place, int], whole: type[BaseModel]
) -> Iterator[str]:
    for problem in error.errors():
        line = _line(tuple(problem["loc"]), lines)
        place = where if line is None else f"{where}, line {line}"
        yield f"{place}: {_explained(problem, whole)}"


def parsed(form: type[S], content: Mapping[str, Any], where: str, text: str = "") -> S:
    """Settings of a form from plain values.

    Args:
        form: Of an audit, or of a sweep.
        content: As read from TOML, or put together from options.
        where: The file's name, for messages.
        text: What it was read from.

    Raises:
        ConfigError: Unknown keys, wrong types, thresholds about what is not measured: each with its line.
    """
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_mistakes(error, where, lines_of(text), form))) from error


def checked(content: Mapping[str, Any], where: str, text: str = "") -> AuditSettings:
    """Settings of an audit from plain values; as ``parsed``."""
    return parsed(AuditSettings, content, where, text)


def read_text(path: Path, kind: str = "audit") -> tuple[str, dict[str, Any]]:
    """Text and content of a TOML or JSON file; of a run's config.json, the settings it was run with.

    Args:
        path: The file.
        kind: What the settings are of: audit or sweep.

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
        if not isinstance(content.get(kind), dict):
            article = "an" if kind == "audit" else "a"
            raise ConfigError(f"{path}: is of a run of 'upi {content['command']}', not of {article} {kind}")
        content = content[kind]
    return text if form == "TOML" else "", content


def schema(form: type[AuditSettings] = AuditSettings) -> dict[str, Any]:
    """The JSON schema of ``audit.toml`` or of ``sweep.toml``, for editors."""
    return form.model_json_schema(by_alias=True)


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
        elif key == "threshold" or (isinstance(values.get(key), list) and key == "network"):
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
    return _document(settings, "What 'upi audit' does with this file, and what must hold.")


def initial_sweep() -> str:
    """A commented ``sweep.toml`` with every key, its default and two networks."""
    networks = [{"model": "runs/train", "name": "mine"}, {"model": "PATH_OR_NAME", "name": "other"}]
    settings = SweepSettings.model_validate({"network": networks, "perturbations": {"fits": 3}})
    return _document(settings, "What 'upi sweep' does with this file: an audit of every network in it.")


def _document(settings: AuditSettings, title: str) -> str:
    document = tomlkit.document()
    document.add(tomlkit.comment(title))
    document.add(tomlkit.nl())
    _commented(document, type(settings), settings.plain())
    if isinstance(settings, SweepSettings):
        document.add(tomlkit.nl())
        named = [network.model_dump(mode="json", exclude_defaults=True) for network in settings.network]
        document.add("network", _tables(NamedNetwork, named))
    document.add(tomlkit.nl())
    lines = [line.model_dump(exclude_none=True) for line in DEFAULT_THRESHOLDS]
    document.add("threshold", _tables(Threshold, lines))
    return tomlkit.dumps(document)


def _tables(model: type[BaseModel], entries: Sequence[Mapping[str, Any]]) -> Any:
    """An array of tables; the keys of the first are explained."""
    tables = tomlkit.aot()
    for number, line in enumerate(entries):
        entry = tomlkit.table()
        for key, value in line.items():
            item = tomlkit.item(value)
            if number == 0:
                item.comment(str(model.model_fields[key].description))
            entry.add(key, item)
        tables.append(entry)
    return tables
