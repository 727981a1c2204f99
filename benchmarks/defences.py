"""Defences, each under attacks fitted on it: python -m benchmarks.defences [--out FOLDER] [--model NETWORK].

Trains the digits' network or takes one, hardens it by each defence, audits every network at the radii of the
first audit and the sampled maps of the first one, and prints a table: accuracy, change of the simple-gradient
map and of the noise, paired difference to the network as it was. A defence that lowers the change under noise
and under attack alike has made maps smoother; the excess says what is left to attacks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
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


def accuracy(metrics: Mapping[str, Any]) -> str:
    """Of the network, as its file says; of the audit's test images where it does not."""
    (table,) = metrics["tables"]
    known = metrics["model"].get("test_accuracy")
    return f"{table['n_test'] / table['n_seen'] if known is None else known:.1%}"


def line(run: Path, first: Path | None) -> str:
    """A network, or a map of the first one; with its difference to ``first``, where there is one."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    (table,) = metrics["tables"]
    rows = {row["name"]: row for row in table["rows"]}
    best = rows[table["strongest"]]
    low, high = best["dissimilarity"]["ci95"]
    paired = "–"
    if first is not None and run != first:
        found = compare([Run.read(first), Run.read(run)])
        mine = next(each for each in found if (each.row, each.metric) == ("strongest", "dissimilarity"))
        paired = f"{mine.difference:+.3f} ({mine.low:+.3f} to {mine.high:+.3f})"
    cells = (
        run.name,
        accuracy(metrics),
        f"{best['dissimilarity']['mean']:.3f} ({low:.3f}–{high:.3f})",
        f"{rows['random']['dissimilarity']['mean']:.3f}",
        f"{rows['per-image']['dissimilarity']['mean']:.3f}",
        f"{best['top_k_overlap']['mean']:.2f}",
        f"{best['prediction_changed']:.1%}",
        paired,
    )
    return f"| {' | '.join(cells)} |"


def train_words(given: argparse.Namespace) -> tuple[str, ...]:
    """Images of the fine-tuning, as 'upi harden' takes them."""
    words = ("--data", given.data, "--eps", str(given.harden_eps), "--epochs", str(given.epochs))
    sizes = () if given.n_train is None else ("--n-train", given.n_train)
    return (*words, "--learning-rate", str(given.learning_rate), *sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/defences"))
    parser.add_argument("--model", help="a network that is there; default: trains the digits' small CNN")
    parser.add_argument("--data", default="mnist-sample")
    parser.add_argument("--n-train", help="images of the fine-tuning; default: those of 'upi train'")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--harden-eps", type=float, default=1.0, help="radius that defences learn to bear")
    parser.add_argument("--eps", default="1.8", help="l2 radius of the audits")
    parser.add_argument("--n-test", default="500")
    parser.add_argument("--n-test-sampled", default="200", help="images for the sampled maps")
    parser.add_argument("--sampled", nargs="*", default=["smoothgrad", "vargrad", "unit_smoothgrad"])
    given = parser.parse_args()
    out: Path = given.out
    model = given.model or str(out / "train")
    if given.model is None and not (out / "train").exists():
        upi("train", "--out", str(out / "train"))
    first = out / "as-trained"
    rest = ("--quick", "--data", given.data, "--n-test", given.n_test)
    upi("audit", "--model", model, "--eps", given.eps, *rest, "--out", str(first))
    for name in DEFENCES:
        network = out / f"{name}-network"
        if not network.exists():
            upi("harden", "--model", model, "--defence", name, *train_words(given), "--out", str(network))
        upi("audit", "--model", str(network), *rest, "--baseline", str(first), "--out", str(out / name))
    fewer = ("--quick", "--data", given.data, "--n-test", given.n_test_sampled, "--eps", given.eps)
    for name in given.sampled:
        upi("audit", "--model", model, *fewer, "--saliency", name, "--out", str(out / name))
    print(
        f"| {' | '.join(HEADS)} |",
        "|---" * len(HEADS) + "|",
        line(first, first),
        *(line(out / name, first) for name in DEFENCES),
        *(line(out / name, None) for name in given.sampled),
        sep="\n",
    )


if __name__ == "__main__":
    main()
