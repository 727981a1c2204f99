"""``audit.toml``: what is written can be read, and every mistake has its line and the nearest name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from upi.audit.file import checked, initial, lines_of, read_text, schema
from upi.audit.settings import (
    DEFAULT_THRESHOLDS,
    AuditSettings,
    ExplanationSettings,
    ImageSettings,
    NetworkSettings,
    PerturbationSettings,
    Threshold,
)
from upi.core.errors import ConfigError

GOOD = """\
effort = "quick"

[network]
model = "runs/train"

[perturbations]
radii = [1.0, "8/255"]

[[threshold]]
metric = "top_k_overlap"
at_least = 0.6

[[threshold]]
metric = "excess_over_noise"
at_most = 0.1
radius = 1.0
"""


def settings(text: str) -> AuditSettings:
    return checked(tomllib.loads(text), "audit.toml", text)


def test_the_written_file_is_the_default() -> None:
    assert settings(initial("m", "folder")) == AuditSettings.model_validate(
        {"network": {"model": "m"}, "images": {"data": "folder"}, "threshold": list(DEFAULT_THRESHOLDS)}
    )


def test_every_key_stands_in_the_written_file() -> None:
    text, names = initial("m"), [*AuditSettings.model_fields, *Threshold.model_fields]
    for part in (NetworkSettings, ImageSettings, ExplanationSettings, PerturbationSettings):
        names += part.model_fields
    left_out = {"version", "map", "norm", "radius"}  # the first is written "schema"; defaults of thresholds
    assert [name for name in names if name not in left_out and name not in text] == []


def test_radii_are_read_as_fractions() -> None:
    assert settings(GOOD).perturbations.radii == [1.0, 8 / 255]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'model = "runs/train"',
            'modle = "runs/train"',
            "line 4: unknown key 'modle'; did you mean 'model'?",
        ),
        (
            "at_least = 0.6",
            'at_least = "high"',
            "line 11: threshold.at_least: Input should be a valid number",
        ),
        ('"top_k_overlap"', '"top_k_overlpa"', "line 10: .*did you mean 'top_k_overlap'?"),
        ("at_least = 0.6", "", "line 9: .*either at_least or at_most"),
        ("radius = 1.0", "radius = 3.0", "threshold 2 is about 3.0, which is not among radii"),
        ("radius = 1.0", 'map = "smoothgrad"', "'smoothgrad', which is not among maps"),
        ("radius = 1.0", 'norm = "linf"', "'linf', which is not among norms"),
        ("radius = 1.0", 'row = "upi-pca"', "'upi-pca', which is not among methods"),
        ("radius = 1.0", 'row = "upi-gard"', "line 16: .*did you mean 'upi-grad'?"),
        ('radii = [1.0, "8/255"]', 'radii = ["wide"]', "line 7: .*number or a fraction"),
        ('radii = [1.0, "8/255"]', "radii = [1.0, 1]", "line 7: .*named twice: 1.0"),
        ('effort = "quick"', 'efort = "quick"', "line 1: unknown key 'efort'; did you mean 'effort'?"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        settings(GOOD.replace(old, new))


def test_a_file_that_is_no_toml_or_is_not_there(tmp_path: Path) -> None:
    broken = tmp_path / "audit.toml"
    broken.write_text("a = = 1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_text(broken)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_text(tmp_path / "none.toml")
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_text(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ConfigError, match="by name, got list"):
        read_text(tmp_path / "a.json")


def test_the_configuration_of_a_run_repeats_it_where_it_is_an_audit(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    asked = settings(GOOD).plain()
    file.write_text(json.dumps({"command": "audit", "argv": [], "audit": asked}))
    assert checked(read_text(file)[1], str(file)).plain() == asked
    file.write_text(json.dumps({"command": "fit", "argv": []}))
    with pytest.raises(ConfigError, match="of a run of 'upi fit', not of an audit"):
        read_text(file)


def test_lines_of_tables_keys_and_arrays_of_tables() -> None:
    lines = lines_of(GOOD)
    assert lines[("network", "model")] == 4
    assert lines[("threshold", 1, "radius")] == 16


def test_the_schema_describes_every_part() -> None:
    found = schema()
    assert {"network", "images", "explanations", "perturbations", "threshold"} <= set(found["properties"])
    assert found["required"] == ["network"]
