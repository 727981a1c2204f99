"""The run folder: the contract's files, written whole, read back without trust.

``config.json``, ``metrics.json``, ``per_sample.parquet``, ``examples.safetensors``,
``perturbations/NAME.safetensors``, ``figures/*.png``, ``report.html``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from upi.core.errors import RunFolderError
from upi.core.storage import write_atomic
from upi.core.tensors import canonical
from upi.perturbation.pattern import Perturbation
from upi.results.place import CONFIG
from upi.results.reading import read
from upi.results.schema import VERSION, Config, Metrics

EXAMPLES, PER_SAMPLE = "examples.safetensors", "per_sample.parquet"
PARTS = ("x", "perturbed", "clean_map", "perturbed_map")


#: Figures of images by (table, row): name to (n,) values.
Columns = Mapping[tuple[str, str], Mapping[str, np.ndarray[Any, Any]]]


class Sampled(Protocol):
    """A table with the figures of each sample, such as ``upi.Evaluation``."""

    @property
    def per_sample(self) -> Mapping[str, Mapping[str, np.ndarray[Any, Any]]]:
        """Row to metric to (n,) values."""


class Plain(Protocol):
    """Something with a form of plain JSON values, such as a flag."""

    def to_dict(self) -> Mapping[str, Any]:
        """That form."""


def parse_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunFolderError: The file is missing, damaged, or no object.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunFolderError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def write_captioned(path: Path, tables: Mapping[str, Sequence[Any]]) -> None:
    """Write example images and maps (``upi.evaluation.Example``) as safetensors, captions in the metadata."""
    tensors, captions = {}, []
    for key, examples in tables.items():
        for number, example in enumerate(examples):
            stem = f"{key}.{number}"
            for part in PARTS:
                tensors[f"{stem}.{part}"] = (
                    getattr(example, part).float().clone(memory_format=torch.contiguous_format)
                )
            caption = {f: getattr(example, f) for f in ("row", "rule", "sample", "label", "value")}
            captions.append({"table": key, "stem": stem, "prediction": example.prediction, **caption})
    write_atomic(path, canonical(save(tensors, {"captions": json.dumps(captions)})))


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes the files of one run."""

    path: Path

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file; NaN is refused, not written."""
        write_atomic(self.path / name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_metrics(
        self,
        *,
        dataset: str,
        model: Mapping[str, Any],
        tables: Sequence[Mapping[str, Any]],
        flags: Iterable[tuple[str | None, Plain]],
        seconds: Mapping[str, float],
        **more: Any,
    ) -> None:
        """Write metrics.json.

        Args:
            dataset: Its name.
            model: ``arch``, ``test_accuracy`` where known, ``fingerprint``; other keys are left out.
            tables: As ``upi.experiments.study.Table.to_dict`` gives them.
            flags: Each with the key of its table, None for the whole run.
            seconds: Wall time by part.
            more: Further entries, such as a curve.
        """
        record = {
            "schema": VERSION,
            "dataset": dataset,
            "model": {key: model.get(key) for key in ("arch", "test_accuracy", "fingerprint")},
            "tables": list(tables),
            "flags": [{"table": key, **flag.to_dict()} for key, flag in flags],
            **more,
            "seconds": {part: round(value, 2) for part, value in seconds.items()},
        }
        self.write_json("metrics.json", record)

    def write_perturbation(self, name: str, perturbation: Perturbation) -> None:
        """Write ``perturbations/NAME.safetensors``."""
        perturbation.save(self.path / "perturbations" / f"{name}.safetensors")

    def write_per_sample(self, tables: Mapping[str, Sampled]) -> None:
        """Write every figure of every sample, one line per table, row and sample."""
        import pandas as pd

        frames = [
            pd.DataFrame({"table": key, "row": row, **columns})
            for key, table in tables.items()
            for row, columns in table.per_sample.items()
        ]
        buffer = io.BytesIO()
        pd.concat(frames, ignore_index=True).to_parquet(buffer, index=False)
        write_atomic(self.path / PER_SAMPLE, buffer.getvalue())

    def write_examples(self, tables: Mapping[str, Sequence[Any]]) -> None:
        """Write the example images and maps with their captions."""
        write_captioned(self.path / EXAMPLES, tables)

    def config(self) -> Config:
        """The content of config.json.

        Raises:
            RunFolderError: It is missing, damaged, or of another schema.
        """
        path = self.path / CONFIG
        return read(Config, parse_json(path), path)

    def metrics(self) -> Metrics:
        """The content of metrics.json; raises as ``config``."""
        path = self.path / "metrics.json"
        return read(Metrics, parse_json(path), path)

    def perturbations(self) -> dict[str, Perturbation]:
        """Every perturbation of the run, by name."""
        files = sorted((self.path / "perturbations").glob("*.safetensors"))
        return {file.name.removesuffix(".safetensors"): Perturbation.load(file) for file in files}

    def columns(self) -> Columns:
        """Every figure of every image by (table, row).

        Raises:
            RunFolderError: per_sample.parquet is missing or damaged.
        """
        import pandas as pd

        path = self.path / PER_SAMPLE
        try:
            frame = pd.read_parquet(path)
            grouped = frame.groupby(["table", "row"], sort=False)
        except (OSError, ValueError, KeyError) as error:
            raise RunFolderError(f"{path}: cannot be read: {error}") from error
        names = [name for name in frame.columns if name not in ("table", "row")]
        return {
            (str(table), str(row)): {name: part[name].to_numpy() for name in names}
            for (table, row), part in grouped
        }

    def per_sample(self) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
        """Dissimilarity of each sample, by (table, row); raises as ``columns``."""
        return {place: figures["dissimilarity"] for place, figures in self.columns().items()}

    def examples(self) -> list[dict[str, Any]]:
        """Captions with their tensors; empty if the run kept none."""
        path = self.path / EXAMPLES
        if not path.exists():
            return []
        try:
            with safe_open(path, framework="pt") as file:
                captions = json.loads((file.metadata() or {})["captions"])
                for caption in captions:
                    for part in PARTS:
                        caption[part] = file.get_tensor(f"{caption['stem']}.{part}")
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise RunFolderError(f"{path}: damaged: {error}") from error
        return list(captions)
