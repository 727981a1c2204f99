"""Coverage-guided: python -m tests.fuzz TARGET [options of libFuzzer, such as -runs=1000000 -timeout=1].

Faults that are found go to tests/fuzz/corpus/TARGET, where every test run tries them again.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["upi", "safetensors", "PIL", "datasets"]):
    from tests.fuzz.targets import TARGETS, tried

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Fuzz one reader."""
    warnings.simplefilter("ignore")
    name, *options = sys.argv[1:]
    target = TARGETS[name]
    work = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    seeds, folder = work / "seeds", work / "place"
    seeds.mkdir()
    (work / "made").mkdir()
    for number, content in enumerate(target.seeds(work / "made")):
        (seeds / f"seed-{number}").write_bytes(content)
        tried(target, folder, content)  # what is imported at the first call takes seconds
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={work}/", str(seeds)],
        lambda data: tried(target, folder, data),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
