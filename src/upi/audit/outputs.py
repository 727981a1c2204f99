"""The verdict for other programs and other people: JUnit, and a card in the manner of model cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

from upi.audit.verdict import Outcome, Verdict


def junit(verdict: Verdict, *, seconds: float = 0.0) -> bytes:
    """JUnit XML: a test case a threshold; what could not be decided is skipped, with its reason."""
    suite = TestSuite("upi audit")
    suite.add_property("outcome", str(verdict.outcome))
    suite.add_property("headline", verdict.headline)
    for check in verdict.checks:
        case = TestCase(f"{check.demand} ({check.row}, {check.among})", classname=check.table)
        case.time = seconds / len(verdict.checks)
        if check.outcome == Outcome.FAILED:
            case.result = [Failure(f"{check.where}: {check.figure}", "threshold")]
        elif check.outcome == Outcome.INCONCLUSIVE:
            case.result = [Skipped(f"{check.where}: {check.figure}")]
        suite.add_testcase(case)
    document = JUnitXml("upi")
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return text


def escaped(text: object) -> str:
    """Text that stays text in Markdown and its tables."""
    plain = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return plain.replace("<", "&lt;").replace("`", "\\`").replace("[", "\\[").replace("*", "\\*")


def _quoted(text: object) -> str:
    """A YAML string."""
    import json

    return json.dumps(str(text), ensure_ascii=False)


MARKS = {Outcome.PASSED: "pass", Outcome.FAILED: "**FAIL**", Outcome.INCONCLUSIVE: "inconclusive"}


def card(
    verdict: Verdict,
    *,
    model: Mapping[str, Any],
    dataset: str,
    tables: Sequence[Mapping[str, Any]],
    flags: Sequence[Mapping[str, Any]],
    command: str,
) -> str:
    """A Markdown card with the front matter of Hugging Face model cards."""
    lines = [
        "---",
        "tags: [explainability, saliency-maps, adversarial-robustness, upi]",
        f"datasets: [{_quoted(dataset)}]",
        "model-index:",
        f"- name: {_quoted(model['arch'])}",
        "  results:",
    ]
    for check in verdict.checks:
        if check.mean is not None:
            lines += [
                "  - task: {type: image-classification, name: explanation robustness}",
                f"    dataset: {{name: {_quoted(dataset)}, type: {_quoted(dataset)}}}",
                "    metrics:",
                f"    - {{type: {_quoted(check.metric)}, name: {_quoted(check.where + ', ' + check.row)}, "
                f"value: {check.mean:.4f}}}",
            ]
    if lines[-1] == "  results:":
        lines[-1] = "  results: []"
    lines += ["---", "", "# Can these explanations be trusted?", "", f"**{escaped(verdict.headline)}**", ""]
    score = model.get("test_accuracy")
    accuracy = "" if score is None else f", test accuracy {score:.1%}"
    lines += [
        f"Network {escaped(model['arch'])}{accuracy} (fingerprint `{model['fingerprint'][:12]}`) "
        f"on {escaped(dataset)}.",
        "",
        "| threshold | where | row | images | figure (95 % interval) | outcome |",
        "|---|---|---|---|---|---|",
    ]
    for check in verdict.checks:
        cells = (check.demand, check.where, check.row, check.n or "-", check.figure)
        lines.append("| " + " | ".join(escaped(cell) for cell in cells) + f" | {MARKS[check.outcome]} |")
    lines += ["", "## What was found", ""]
    for table in tables:
        lines += [f"- {sentence}" for sentence in [escaped(table.get("finding", ""))] if sentence]
    if flags:
        lines += ["", "## Flags", ""]
        lines += [f"- `{flag['code']}`: {escaped(flag['message'])}" for flag in flags]
    lines += [
        "",
        "## What this says, and what not",
        "",
        "Attacks are lower bounds: a threshold that holds has held against these attacks, with this budget, "
        "on these images; one that is crossed has been crossed. Figures are means over test images that were "
        "used for nothing else, with 95 % bootstrap intervals.",
        "",
        "## Repeat it",
        "",
        "```sh",
        command.replace("```", ""),
        "```",
        "",
    ]
    return "\n".join(lines)
