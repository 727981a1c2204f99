"""Defences on the digits, each under attacks fitted on it: python -m benchmarks.defences [--out FOLDER].

Trains the demo's network, hardens it by each defence, audits every network at the radii of the first audit,
and prints a table: accuracy, change of the simple-gradient map and of the noise, paired difference to the
network as it was. A defence that lowers the change under noise and under attack alike has made maps smoother;
the excess says what is left to attacks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from upi.audit.compare import Run, compare
from upi.models.harden import DEFENCES

HEADS = (
    "defence",
    "accuracy",
    "strongest universal (95 %)",
    "noise",
    "per image",
    "top 5 % kept",
    "flips",
    "difference (95 %)",
)


def upi(*words: str) -> None:
    """Run a command of the library; verdicts may fail."""
    done = subprocess.run([sys.executable, "-m", "upi", *words], check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"upi {' '.join(words)} ended with {done.returncode}")


def line(run: Path, first: Path) -> str:
    """A network in the table."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    (table,) = metrics["tables"]
    rows = {row["name"]: row for row in table["rows"]}
    best = rows[table["strongest"]]
    low, high = best["dissimilarity"]["ci95"]
    paired = "–"
    if run != first:
        found = compare([Run.read(first), Run.read(run)])
        mine = next(each for each in found if (each.row, each.metric) == ("strongest", "dissimilarity"))
        paired = f"{mine.difference:+.3f} ({mine.low:+.3f} to {mine.high:+.3f})"
    cells = (
        run.name,
        f"{metrics['model']['test_accuracy']:.1%}",
        f"{best['dissimilarity']['mean']:.3f} ({low:.3f}–{high:.3f})",
        f"{rows['random']['dissimilarity']['mean']:.3f}",
        f"{rows['per-image']['dissimilarity']['mean']:.3f}",
        f"{best['top_k_overlap']['mean']:.2f}",
        f"{best['prediction_changed']:.1%}",
        paired,
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/defences"))
    parser.add_argument("--eps", default="1.8", help="l2 radius of the audits")
    parser.add_argument("--n-test", default="500")
    given = parser.parse_args()
    out: Path = given.out
    if not (out / "train").exists():
        upi("train", "--out", str(out / "train"))
    first = out / "as-trained"
    rest = ("--quick", "--n-test", given.n_test)
    upi("audit", "--model", str(out / "train"), "--eps", given.eps, *rest, "--out", str(first))
    for name in DEFENCES:
        network = out / f"{name}-network"
        if not network.exists():
            upi("harden", "--model", str(out / "train"), "--defence", name, "--out", str(network))
        upi("audit", "--model", str(network), *rest, "--baseline", str(first), "--out", str(out / name))
    print(
        f"| {' | '.join(HEADS)} |",
        "|---" * len(HEADS) + "|",
        line(first, first),
        *(line(out / name, first) for name in DEFENCES),
        sep="\n",
    )


if __name__ == "__main__":
    main()
