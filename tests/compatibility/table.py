"""Writes docs/compatibility.md from the cases: python -m tests.compatibility.table."""

from __future__ import annotations

from pathlib import Path

from tests.compatibility.cases import CASES, EVALUATED, REFUSED, WORKS

PATH = Path(__file__).parents[2] / "docs" / "compatibility.md"
HEAD = f"""# What works with what

Every line is a test (`tests/compatibility`): the combination is fitted with UPI-Grad and evaluated, and what
is said here is what happens. This page is written by `python -m tests.compatibility.table`.

* *{WORKS}*: perturbations can be found on it and measured on it;
* *{EVALUATED}*: perturbations found elsewhere (fit on the simple gradient, or on the Python network) are
  measured on it; a fit is refused, because its gradient would be wrong or does not exist;
* *{REFUSED}*: one sentence says what is wrong and which line mends it.
"""


def rendered() -> str:
    """The page."""
    text = [HEAD]
    for group in dict.fromkeys(case.group for case in CASES):
        text.append(f"## {group}\n\n| | |\n|---|---|")
        text += [f"| {case.title} | {case.outcome} |" for case in CASES if case.group == group]
        text.append("")
    return "\n".join(text)


if __name__ == "__main__":
    PATH.write_text(rendered())
