"""Draws docs/architecture.svg from the imports of the code: python docs/architecture.py.

Each package of ``upi`` is a box with the first sentence of its docstring; it stands one floor above the
highest package that it imports. Lines are imports, without those that follow from others.
"""

from __future__ import annotations

import ast
import textwrap
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "upi"
WIDTH, HEIGHT, ROW, TOP, PAGE = 176, 74, 122, 58, 1000
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {page} {height}" role="img"
 font-family="DejaVu Sans, Segoe UI, sans-serif" font-size="13" aria-label="Architecture of upi">
<style>.b{{fill:#fff;stroke:#9ca3af}}.t{{fill:#1f2937;font-weight:600}}.s{{fill:#4b5563;font-size:10.5px}}
.l{{stroke:#94a3b8;stroke-width:1.3;fill:none}}.c{{fill:#1f2937;font-size:15px;font-weight:600}}</style>
<rect width="{page}" height="{height}" fill="#f9fafb"/>
<text x="24" y="32" class="c">Every package stands above what it imports; nothing imports upwards</text>
"""


def packages() -> dict[str, str]:
    """Package to the first sentence of its docstring."""
    found = {}
    for path in sorted(SOURCE.glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        found[path.parent.name] = text.split("\n\n")[0].replace("\n", " ").replace("``", "").rstrip(".")
    return found


def imported(path: Path) -> set[str]:
    """Packages of ``upi`` that a file imports; a relative import is refused."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: relative import")
            module = str(node.module)
            names.update(f"upi.{alias.name}" for alias in node.names) if module == "upi" else names.add(
                module
            )
    return {name.split(".")[1] for name in names if name.startswith("upi.")}


def imports() -> dict[str, set[str]]:
    """Package to the packages that it imports."""
    return {name: set().union(*map(imported, (SOURCE / name).rglob("*.py"))) - {name} for name in packages()}


def floors(edges: dict[str, set[str]]) -> dict[str, int]:
    """Package to its floor, 0 for those that import nothing."""
    found: dict[str, int] = {}
    while len(found) < len(edges):
        ready = [name for name, below in edges.items() if name not in found and below <= set(found)]
        if not ready:
            raise ValueError(f"a circle of imports among {sorted(set(edges) - set(found))}")
        found |= {name: 1 + max((found[b] for b in edges[name]), default=-1) for name in ready}
    return found


def direct(edges: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Imports that do not follow from others."""

    def reach(name: str) -> set[str]:
        return set().union(*({below} | reach(below) for below in edges[name]))

    return {
        (name, below)
        for name in edges
        for below in edges[name]
        if not any(below in reach(other) for other in edges[name] - {below})
    }


def places(floor: dict[str, int], lines: set[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Top left corner of each box; on each floor in the order of what lies below."""
    found: dict[str, tuple[float, float]] = {}
    top = max(floor.values())
    for level in range(top + 1):
        here = [name for name in floor if floor[name] == level]

        def below(name: str) -> float:
            x = [found[b][0] for a, b in lines if a == name]
            return sum(x) / len(x)

        here.sort(key=lambda name: (below(name) if level else 0.0, name))
        gap = (PAGE - len(here) * WIDTH) / (len(here) + 1)
        for number, name in enumerate(here):
            found[name] = (gap + number * (WIDTH + gap), TOP + (top - level) * ROW)
    return found


def draw() -> str:
    """The picture as SVG."""
    said, edges = packages(), imports()
    floor, lines = floors(edges), direct(edges)
    corner = places(floor, lines)
    parts = [HEAD.format(page=PAGE, height=TOP + max(floor.values()) * ROW + HEIGHT + 24)]
    for a, b in sorted(lines):
        (x1, y1), (x2, y2) = corner[a], corner[b]
        x1, x2, y1 = x1 + WIDTH / 2, x2 + WIDTH / 2, y1 + HEIGHT
        bend = (y2 - y1) / 2
        parts.append(
            f'<path class="l" d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} '
            f'{x2:.0f} {y2:.0f}"/>\n'
        )
    for name, (x, y) in sorted(corner.items()):
        parts.append(
            f'<rect class="b" x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f'<text class="t" x="{x + 10:.0f}" y="{y + 20:.0f}">{name}</text>\n'
        )
        for number, line in enumerate(textwrap.wrap(said[name], 29)[:3]):
            parts.append(
                f'<text class="s" x="{x + 10:.0f}" y="{y + 37 + 14 * number:.0f}">{escape(line)}</text>\n'
            )
    return "".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    (DOCS / "architecture.svg").write_text(draw())
