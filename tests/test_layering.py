"""The architecture as a test: imports only go down the list, islands never touch."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent / "src" / "upi"
#: Lowest floor first; a module imports from strictly lower floors, or from its own package.
FLOORS = [
    ["core", "moved"],
    ["linalg", "saliency", "dissimilarity", "network"],
    ["data"],
    ["perturbation"],
    ["results", "adapters"],
    ["attacks"],
    ["evaluation"],
    ["report"],
    ["datasets"],
    ["models"],
    ["experiments"],
    ["audit"],
    ["cli"],
    ["__main__"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def _architecture() -> ModuleType:
    """What draws the picture of the architecture; it reads the imports for the tests too."""
    spec = importlib.util.spec_from_file_location("architecture", ROOT.parents[1] / "docs/architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ARCHITECTURE = _architecture()


def _unit(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_go_down(path: Path) -> None:
    unit = _unit(path)
    upward = {name for name in ARCHITECTURE.imported(path) - {unit} if FLOOR[name] >= FLOOR[unit]}
    assert not upward, f"{unit} (floor {FLOOR[unit]}) imports {sorted(upward)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small_and_say_their_job(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.slow
def test_importing_the_library_is_light() -> None:
    """Only torch, NumPy, safetensors and what they bring: SciPy's statistics load where used."""
    code = "import sys, upi; [getattr(upi, name) for name in upi.__all__]\n"
    code += "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"scipy", "pandas", "pyarrow", "datasets", "matplotlib", "typer", "rich", "pydantic", "jinja2"}
    heavy |= {"mlxtend", "sklearn", "torchvision", "timm", "platformdirs", "PIL"}
    assert "torch" in out
    assert not heavy & set(out)


def _reached(start: str) -> set[str]:
    """Packages whose modules the modules of ``start`` reach, however far the way; ``upi`` itself aside."""
    modules = {
        f"upi.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}".removesuffix(".__init__"): path
        for path in FILES
    }
    open_, seen = [name for name in modules if name.split(".")[1] == start], set[str]()
    while open_:
        name = open_.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(modules[name].read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("upi"):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                parts = str(node.module).split(".")
                around = [".".join(parts[:depth]) for depth in range(2, len(parts) + 1)]
                open_ += [module for module in (*inner, *around) if module in modules]
    return {name.split(".")[1] for name in seen}


def test_the_report_never_sees_a_network() -> None:
    assert _reached("report") == {"core", "data", "perturbation", "report", "results"}


def test_the_picture_is_that_of_the_code() -> None:
    assert (ROOT.parents[1] / "docs/architecture.svg").read_text() == ARCHITECTURE.draw(), (
        "draw it again: python docs/architecture.py"
    )


def test_the_library_does_not_speak_of_options_of_the_command_line() -> None:
    for path in FILES:
        if _unit(path) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"(^|[\s(])--[a-z]", node.value), f"{path}: {node.value!r}"
