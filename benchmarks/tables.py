"""From the JSON of a benchmark run to docs/benchmarks.md and its figures.

python -m benchmarks.tables
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from upi.report.style import look

ROOT = Path(__file__).parent
DOCS = ROOT.parent / "docs"
Record = dict[str, Any]
COLOURS = {"upi": "#c2410c", "unit": "#6b7280", "upi-grad": "#c2410c", "upi-pca, sketch": "#0f766e"}
TITLES = {
    "vgg16": "VGG-16",
    "resnet18": "ResNet-18",
    "vit": "ViT",
    "small-cnn": "small CNN",
    "resnet50": "ResNet-50",
}


def records(folder: Path, table: str) -> list[Record]:
    """What was measured for one table: facts, seconds (least of the rounds) and peak memory."""
    files = sorted(folder.glob("*.json"))
    found = [entry for file in files for entry in json.loads(file.read_text())["benchmarks"]]
    return [
        {**entry["extra_info"], "seconds": entry["stats"]["min"], "median": entry["stats"]["median"]}
        for entry in found
        if entry["extra_info"].get("table") == table
    ]


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def duration(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def size(bytes_: float | None) -> str:
    return (
        "" if bytes_ is None else f"{bytes_ / 2**20:.0f} MB" if bytes_ < 2**30 else f"{bytes_ / 2**30:.1f} GB"
    )


def title(record: Record) -> str:
    width = record.get("width", 1.0)
    return TITLES[record["arch"]] + (f" ×{width:g}" if width != 1 else "")


def pick(found: Sequence[Record], **wanted: Any) -> Record | None:
    return next((r for r in found if all(r[key] == value for key, value in wanted.items())), None)


def steps(folder: Path) -> str:
    """One block per network and batch: the methods in units."""
    found, blocks = records(folder, "step"), []
    for key in dict.fromkeys((r["arch"], r["width"], r["batch"]) for r in found):
        mine = [r for r in found if (r["arch"], r["width"], r["batch"]) == key]
        given, strict = pick(mine, method="unit"), pick(mine, method="unit, folded")
        if given is None or strict is None:
            continue
        as_given = given["seconds"] / given["beside"]
        lines = []
        for r in mine:
            error, units = r.get("error"), r["seconds"] / r["beside"]
            lines.append(
                [
                    r["method"],
                    duration(r["seconds"]),
                    duration(r["beside"]),
                    f"**{units:.2f}**",
                    f"{units / as_given:.2f}",
                    f"{r['peak'] / strict['peak']:.2f}" if r.get("peak") else "",
                    "" if error is None else f"{error:.0e}",
                ]
            )
        heads = [
            "",
            "time",
            "folded unit beside it",
            "units, folded",
            "units, as given",
            "memory, units",
            "relative error",
        ]
        blocks.append(f"### {title(mine[0])}, batch {key[2]}\n\n" + markdown(heads, lines))
    return "\n\n".join(blocks)


def ablation(folder: Path) -> str:
    """The step with one more part of the fast path at a time, in folded units."""
    found = records(folder, "ablation")
    cases = list(dict.fromkeys((r["arch"], r["width"], r["batch"]) for r in found))
    heads = ["with"]
    for case in cases:
        first = next(r for r in found if (r["arch"], r["width"], r["batch"]) == case)
        heads += [f"{title(first)}, batch {case[2]}", "units"]
    lines = []
    for part in dict.fromkeys(r["part"] for r in found):
        line = [part if part.startswith(("autograd", "clean")) else f"+ {part}"]
        for arch, width, batch in cases:
            mine = pick(found, arch=arch, width=width, batch=batch, part=part)
            assert mine is not None
            line += [duration(mine["seconds"]), f"{mine['seconds'] / mine['beside']:.2f}"]
        lines.append(line)
    return markdown(heads, lines)


def maps(folder: Path) -> str:
    found = records(folder, "maps")
    heads = ["map", "steps", "fitting step", "per step, of a simple gradient's", "memory", "map", "memory"]
    lines = []
    base = {r["what"]: r for r in found if r["steps"] == 1}
    for method, count in dict.fromkeys((r["method"], r["steps"]) for r in found):
        step = pick(found, method=method, steps=count, what="step")
        shown = pick(found, method=method, steps=count, what="map")
        if step is None or shown is None:
            continue
        ratio = step["seconds"] / count / base["step"]["seconds"]
        name = "simple gradient" if count == 1 else method.replace("_", " ")
        lines.append(
            [
                name,
                str(count),
                duration(step["seconds"]),
                f"{ratio:.2f}",
                size(step["peak"]),
                duration(shown["seconds"]),
                size(shown["peak"]),
            ]
        )
    return markdown(heads, lines)


def pca(folder: Path) -> str:
    jobs = [
        [
            r["job"],
            r["solver"],
            str(r["rows"]),
            f"{r['passes']:.0f}",
            duration(r["seconds"]),
            f"{r['solver share']:.1%}",
        ]
        for r in records(folder, "pca job")
    ]
    found = records(folder, "solvers")
    lines = []
    for r in found:
        note = f"certificate {r['certificate']:.3f}" if "certificate" in r else ""
        note = f"{r['updates']} updates" if "updates" in r else note
        lines.append(
            [
                f"{r['ratio']:g}",
                r["solver"],
                duration(r["seconds"]),
                f"{r['cosine']:.6f}",
                size(r["peak"]),
                note,
            ]
        )
    heads = ["σ₂/σ₁", "solver", "time", "\\|cos\\|", "memory beside the matrix", ""]
    return (
        markdown(
            ["network", "solver", "rows", "passes over the data", "rows and solver", "solver's share"], jobs
        )
        + "\n\n"
        + markdown(heads, lines)
    )


def strength(folder: Path) -> str:
    lines = []
    for r in records(folder, "strength"):
        passes = r["passes to 95 %"]
        lines.append(
            [
                TITLES[r["arch"]],
                r["method"],
                "not reached" if passes is None else f"{passes:.0f}",
                f"{r['reference']:.3f}",
                str(r["seeds"]),
            ]
        )
    return markdown(["network", "ascent", "passes to 95 %", "map change of the long run", "seeds"], lines)


def job(folder: Path) -> str:
    lines = []
    for r in records(folder, "job"):
        lines.append(
            [
                TITLES[r["arch"]],
                r["method"],
                duration(r["seconds"]),
                f"{r['strength']:.3f}",
                duration(r["paper seconds"]),
                f"{r['paper strength']:.3f}",
                f"{r['steps']} / {r['paper steps']}",
                f"**{r['paper seconds'] / r['seconds']:.0f}×**",
            ]
        )
    heads = ["network", "method", "upi", "map change", "paper's procedure", "map change", "steps", "faster"]
    return markdown(heads, lines)


def evaluation(folder: Path) -> str:
    found = records(folder, "evaluation")
    lines = []
    for r in found:
        units = r["seconds"] / r["beside"]
        lines.append([title(r), r["row"], duration(r["seconds"] / r["images"]), f"{units:.1f}"])
    return markdown(["network", "", "per image", "units"], lines)


def gpu(folder: Path) -> str:
    """The GPU table, or a line that says that there is none."""
    if not folder.exists():
        return (
            "Not measured: no GPU was at hand. `make bench DEVICE=cuda` fills this table; the code paths are "
            "tested on the CPU."
        )
    found, lines = records(folder, "gpu"), []
    for r in found:
        unit = pick(found, arch=r["arch"], method="unit", tf32=r["tf32"], layout=r["layout"])
        assert unit is not None
        lines.append(
            [
                TITLES[r["arch"]],
                "TF32" if r["tf32"] else "float32",
                r["layout"],
                r["method"],
                duration(r["seconds"]),
                f"{r['seconds'] / unit['seconds']:.2f}",
                f"{r['peak'] / unit['peak']:.2f}" if r.get("peak") else "",
            ]
        )
    return markdown(["network", "precision", "layout", "", "time", "units", "memory, units"], lines)


def _slope(axes: Axes, x: Sequence[float], y: float, power: float, label: str) -> None:
    values = np.asarray(x, dtype=float)
    axes.plot(values, y * (values / values[-1]) ** power, ":", color="#9ca3af", label=label)


def growth(folder: Path) -> Figure:
    """Time and memory against number of images, image size and parameters, with expected slopes."""
    found = records(folder, "growth")
    panels: list[tuple[str, str, str, float | None, float]] = [
        ("images", "images in the pass", "linear", 1.0, 0.0),
        ("image size", "image side (pixels)", "quadratic", 2.0, 2.0),
        ("parameters", "parameters", "linear", 1.0, 0.5),
    ]
    with look():
        figure, grid = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
        for column, (against, label, _, slope, memory) in zip(grid.T, panels, strict=True):
            mine = [r for r in found if r["against"] == against]
            for axes, key, scale, power in (
                (column[0], "seconds", 1.0, slope),
                (column[1], "peak", 2.0**20, memory),
            ):
                for method in dict.fromkeys(r["method"] for r in mine):
                    points = sorted((r["value"], r[key] / scale) for r in mine if r["method"] == method)
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, "o-", color=COLOURS[method], label=method)
                x = sorted({r["value"] for r in mine})
                last = min(r[key] / scale for r in mine if r["value"] == x[-1])
                if power is not None:
                    _slope(axes, x, last, power, f"slope {power:g}")
                axes.set(xscale="log", yscale="log", xlabel=label)
                axes.set_xticks(x, [f"{v / 1e6:.1f}M" if v > 1e5 else str(v) for v in x], minor=False)
                axes.xaxis.set_minor_locator(NullLocator())
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
                axes.legend(fontsize=8)
        grid[0, 0].set_ylabel("seconds")
        grid[1, 0].set_ylabel("peak memory (MB)")
    return figure


def strengths(folder: Path) -> Figure:
    """Strength against gradient passes."""
    found = records(folder, "strength")
    looks = {
        "upi": ("#c2410c", "-"),
        "plain ascent": ("#6b7280", "-"),
        "upi, paper preset": ("#c2410c", "--"),
        "plain ascent, paper preset": ("#6b7280", "--"),
    }
    with look():
        archs = list(dict.fromkeys(r["arch"] for r in found))
        size = (5.5 * len(archs), 3.8)
        figure, grid = plt.subplots(1, len(archs), figsize=size, layout="constrained", squeeze=False)
        panels = grid[0]
        for axes, arch in zip(panels, archs, strict=True):
            for r in (r for r in found if r["arch"] == arch):
                curve = sorted((int(passes), value / r["reference"]) for passes, value in r["curve"].items())
                colour, style = looks[r["method"]]
                axes.plot(
                    *zip(*curve, strict=True), "o", linestyle=style, color=colour, ms=3, label=r["method"]
                )
            axes.axhline(0.95, color="#9ca3af", linestyle=":")
            axes.set(xscale="log", xlabel="gradient passes", title=TITLES[arch])
        panels[0].set_ylabel("map change / that of the long run")
        panels[0].legend(fontsize=8)
    return figure


SECTIONS: dict[str, tuple[str, str, Callable[[Path], str]]] = {
    "One step": ("bench_step", "", steps),
    "What each part is worth": ("bench_ablation", "", ablation),
    "Maps of many passes": ("bench_maps", ": VGG-16 ×0.25, batch 64", maps),
    "UPI-PCA": ("bench_pca", "; the second table is about a stored 2,000 × 3,072 matrix", pca),
    "Time to strength": ("bench_strength", "; a pass is one image in one step, VGG-16 ×0.25", strength),
    "The whole job": ("bench_job", "; steps: ours / the paper's procedure, VGG-16 ×0.25", job),
    "Evaluation": ("bench_evaluation", "", evaluation),
}


ABOUT = (
    "Times are the least of several rounds. The machine's speed drifts, so a folded unit is timed before "
    "every round: compare units, not times of different lines. Memory is the peak of what a call allocates. "
    "The unit is a plain saliency pass (forward and input gradient, weights frozen, softplus network, "
    "autograd), for the network as given and with its batch norm folded. What the numbers mean and what was "
    "tried is in `docs/performance.md`."
)


def main(results: Path = ROOT / "results", docs: Path = DOCS) -> None:
    """Write benchmarks.md and the figures beside it."""
    folder = results / "cpu"
    machine = json.loads(min(folder.glob("*.json")).read_text())["machine_info"]
    text = [
        "# Benchmarks",
        "    make bench                # and make bench DEVICE=cuda where there is a GPU",
        f"{machine['cpu']['brand_raw']}, {machine['threads']} threads, torch {machine['torch']}, Python "
        f"{machine['python']}. {ABOUT}",
    ]
    for head, (source, note, table) in SECTIONS.items():
        text += [f"## {head}", f"`benchmarks/{source}.py`{note}", table(folder)]
        if head == "Time to strength":
            strengths(folder).savefig(docs / "images" / "strength.png")
            text.append("![Strength against gradient passes](images/strength.png)")
    growth(folder).savefig(docs / "images" / "growth.png")
    text += [
        "## Growth",
        "`benchmarks/bench_growth.py`: small CNN (images); ResNet-18 ×0.25, batch 16 (image size; above 48 "
        "pixels its stem halves the image); VGG-16 of four widths, batch 32 (parameters)",
        "![Time and memory as work grows](images/growth.png)",
    ]
    text += ["## GPU", "`benchmarks/bench_gpu.py`", gpu(results / "cuda")]
    (docs / "benchmarks.md").write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
