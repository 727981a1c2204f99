"""From the JSON of a benchmark run to docs/benchmarks.md and its figures.

python -m benchmarks.tables
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import growth, strengths
from benchmarks.records import DOCS, ROOT, TITLES, duration, in_passes, markdown, pick, records, size, title


def steps(folder: Path) -> str:
    """One block per network and batch: the methods in own passes, softplus passes and smoothed passes."""
    found, blocks = records(folder, "step"), []
    heads = ["", "time", "own pass beside it", "own passes", "softplus passes", "smoothed passes"]
    for key in dict.fromkeys((r["arch"], r["width"], r["batch"]) for r in found):
        mine = [r for r in found if (r["arch"], r["width"], r["batch"]) == key]
        forms = [pick(mine, method=f"{form} pass") for form in ("own", "softplus", "smoothed")]
        own, softplus, smoothed = forms
        if own is None or softplus is None or smoothed is None:
            continue
        lines = []
        for r in mine:
            error, passes = r.get("error"), in_passes(r)
            lines.append(
                [
                    r["method"],
                    duration(r["seconds"]),
                    duration(r["beside"]),
                    f"**{passes:.2f}**",
                    f"{passes / in_passes(softplus):.2f}",
                    f"{passes / in_passes(smoothed):.2f}",
                    f"{r['peak'] / own['peak']:.2f}" if r.get("peak") else "",
                    "" if error is None else f"{error:.0e}",
                ]
            )
        table = markdown([*heads, "memory, own passes", "relative error"], lines)
        blocks.append(f"### {title(mine[0])}, batch {key[2]}\n\n{table}")
    return "\n\n".join(blocks)


def ablation(folder: Path) -> str:
    """The step with one more part of the fast path at a time, in own passes."""
    found = records(folder, "ablation")
    cases = list(dict.fromkeys((r["arch"], r["width"], r["batch"]) for r in found))
    heads = ["with"]
    for case in cases:
        first = next(r for r in found if (r["arch"], r["width"], r["batch"]) == case)
        heads += [f"{title(first)}, batch {case[2]}", "own passes"]
    lines = []
    for part in dict.fromkeys(r["part"] for r in found):
        line = [part if part.startswith(("autograd", "clean")) else f"+ {part}"]
        for arch, width, batch in cases:
            mine = pick(found, arch=arch, width=width, batch=batch, part=part)
            assert mine is not None
            line += [duration(mine["seconds"]), f"{in_passes(mine):.2f}"]
        lines.append(line)
    return markdown(heads, lines)


def maps(folder: Path) -> str:
    """Fitting steps and maps, in own passes; captum's have no fitting step."""
    found = records(folder, "maps")
    heads = ["map", "steps", "fitting step", "own passes", "of so many simple gradients", "memory"]
    lines, one = [], pick(found, method="integrated gradients", steps=1, what="step")
    for method, count in dict.fromkeys((r["method"], r["steps"]) for r in found):
        step = pick(found, method=method, steps=count, what="step")
        shown = pick(found, method=method, steps=count, what="map")
        if shown is None or one is None:
            continue
        name = "simple gradient" if count == 1 else method
        if method == "captum":
            name = "captum, Saliency" if count == 1 else "captum, IntegratedGradients"
        fitted = [""] * 4
        if step is not None:
            share = in_passes(step) / count / in_passes(one)
            fitted = [
                duration(step["seconds"]),
                f"**{in_passes(step):.2f}**",
                f"{share:.2f}",
                size(step["peak"]),
            ]
        map_ = [duration(shown["seconds"]), f"**{in_passes(shown):.2f}**", size(shown["peak"])]
        lines.append([name, str(count), *fitted, *map_])
    return markdown([*heads, "map", "own passes", "memory"], lines)


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
        lines.append([title(r), r["row"], duration(r["seconds"] / r["images"]), f"{in_passes(r):.1f}"])
    return markdown(["network", "", "per image", "own passes"], lines)


def gpu(folder: Path) -> str:
    """The GPU table, or a line that says that there is none."""
    if not folder.exists():
        return (
            "Full-size networks on a GPU were measured by `python -m benchmarks.full_size` "
            "(docs/performance.md); `make bench DEVICE=cuda` fills this table."
        )
    found, lines = records(folder, "gpu"), []
    for r in found:
        own = pick(found, arch=r["arch"], method="own pass", tf32=r["tf32"], layout=r["layout"])
        assert own is not None
        lines.append(
            [
                TITLES[r["arch"]],
                "TF32" if r["tf32"] else "float32",
                r["layout"],
                r["method"],
                duration(r["seconds"]),
                f"{r['seconds'] / own['seconds']:.2f}",
                f"{r['peak'] / own['peak']:.2f}" if r.get("peak") else "",
            ]
        )
    return markdown(["network", "precision", "layout", "", "time", "own passes", "memory, own passes"], lines)


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
    "Times are the least of several rounds. The machine's speed drifts, so a pass of the network as "
    "given is timed before every round: compare passes, not times of different lines. Memory is the "
    "peak of what a call allocates. An own pass is what a user knows: forward and input gradient of the "
    "network as given, by autograd. Its softplus form has softplus for ReLU, the smoothed form, which "
    "attacks look through, smooth max-pooling too; folded means with batch norms folded into "
    "convolutions beforehand. What the numbers mean and what was tried is in `docs/performance.md`."
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
