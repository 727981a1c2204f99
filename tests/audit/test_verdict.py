"""One function decides; text, JSON, JUnit, card and exit code say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from junitparser import JUnitXml

from upi.audit.decide import FORBID_ALL, FORBID_PASS, decide
from upi.audit.outputs import card, junit
from upi.audit.settings import Threshold
from upi.audit.verdict import Outcome, Verdict
from upi.cli.exits import CODES

MODEL = {"arch": "net", "test_accuracy": 0.9, "fingerprint": "f" * 64}


def table(key: str = "gradient-l2-1", **more: Any) -> dict[str, Any]:
    fixed = {"saliency": "gradient", "map_title": "simple-gradient map", "norm": "l2", "eps": 1.0}
    return {"key": key, **fixed, "strongest": "upi-grad", **more}


def columns(
    mean: float, spread: float = 0.1, n: int = 200, flips: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    values = np.linspace(mean - spread, mean + spread, n)
    changed = np.arange(n) < flips
    kept = np.where(changed, np.nan, values)
    both = {"dissimilarity": values, "top_k_overlap": values}
    return {**both, **{f"{k}|unchanged": kept for k in both}, "prediction_changed": changed.astype(float)}


def judged(line: Threshold, mine: Any, *codes: str, noise: float = 0.2, **options: Any) -> Verdict:
    found = {
        ("gradient-l2-1", "upi-grad"): mine,
        ("gradient-l2-1", "random"): columns(noise, n=len(mine["dissimilarity"])),
    }
    flags = [{"table": None, "code": code, "message": code} for code in codes]
    return decide([table()], found, [line], flags, **options)


OVERLAP = Threshold(metric="top_k_overlap", at_least=0.6)
EXCESS = Threshold(metric="excess_over_noise", at_most=0.1)


@pytest.mark.parametrize(
    ("line", "mean", "outcome"),
    [
        (OVERLAP, 0.7, Outcome.PASSED),
        (OVERLAP, 0.5, Outcome.FAILED),
        (OVERLAP, 0.6, Outcome.INCONCLUSIVE),
        (EXCESS, 0.25, Outcome.PASSED),
        (EXCESS, 0.4, Outcome.FAILED),
        (EXCESS, 0.301, Outcome.FAILED),  # paired with the noise on each image: no spread is left
    ],
)
def test_a_whole_interval_decides(line: Threshold, mean: float, outcome: Outcome) -> None:
    assert judged(line, columns(mean)).outcome == outcome


def test_the_excess_is_paired_and_its_value_right() -> None:
    (check,) = judged(EXCESS, columns(0.45)).checks
    assert check.mean == pytest.approx(0.25)


def test_only_images_whose_prediction_stays_count_unless_all_are_asked_for() -> None:
    mine = columns(0.7, n=200, flips=50)
    (kept,) = judged(OVERLAP, mine).checks
    (whole,) = judged(Threshold(metric="top_k_overlap", at_least=0.6, among="all"), mine).checks
    assert (kept.n, whole.n) == (150, 200)
    assert kept.mean == pytest.approx(float(np.nanmean(mine["top_k_overlap|unchanged"])))


def test_no_changed_prediction_is_no_proof_that_none_changes() -> None:
    line = Threshold(metric="prediction_changed", at_most=0.01)
    verdict = judged(line, columns(0.5, n=100))
    assert verdict.outcome == Outcome.INCONCLUSIVE  # Wilson's interval of 0 of 100 ends at 3.7 %
    assert judged(line, columns(0.5, n=1000)).outcome == Outcome.PASSED


def test_too_few_images_are_inconclusive_with_the_number_needed() -> None:
    (check,) = judged(OVERLAP, columns(0.9, n=12), minimum=30).checks
    assert (check.outcome, check.needed) == (Outcome.INCONCLUSIVE, 30)
    (check,) = judged(OVERLAP, columns(0.605, n=200)).checks
    assert check.needed is not None
    more = judged(OVERLAP, columns(0.605, n=check.needed)).checks[0]
    assert more.outcome == Outcome.PASSED


@pytest.mark.parametrize("code", FORBID_ALL)
def test_flags_that_make_figures_wrong_forbid_both(code: str) -> None:
    assert judged(OVERLAP, columns(0.9), code).outcome == Outcome.INCONCLUSIVE
    assert judged(OVERLAP, columns(0.1), code).outcome == Outcome.INCONCLUSIVE


@pytest.mark.parametrize("code", FORBID_PASS)
def test_flags_of_weak_attacks_forbid_a_pass_only(code: str) -> None:
    assert judged(OVERLAP, columns(0.9), code).outcome == Outcome.INCONCLUSIVE
    assert judged(OVERLAP, columns(0.1), code).outcome == Outcome.FAILED


def test_flags_of_another_table_do_not_count() -> None:
    found = {("gradient-l2-1", "upi-grad"): columns(0.9)}
    flags = [{"table": "another", "code": FORBID_ALL[0], "message": ""}]
    assert decide([table()], found, [OVERLAP], flags).outcome == Outcome.PASSED


def test_what_was_not_measured_is_inconclusive_and_says_why() -> None:
    failed = {**table(), "strongest": None, "error": "ZeroGradientError: zero"}
    (check,) = decide([failed], {}, [OVERLAP]).checks
    assert (check.outcome, check.reason) == (Outcome.INCONCLUSIVE, "ZeroGradientError: zero")
    (check,) = decide([table()], {}, [Threshold(metric="ceiling", at_most=1)]).checks
    assert check.outcome == Outcome.INCONCLUSIVE
    far = Threshold(metric="top_k_overlap", at_least=0.6, radius=7.0)
    assert judged(far, columns(0.9)).outcome == Outcome.INCONCLUSIVE


def test_a_failure_outweighs_what_is_open() -> None:
    lines = [Threshold(metric="top_k_overlap", at_least=limit) for limit in (0.1, 0.5, 0.9)]
    verdict = decide([table()], {("gradient-l2-1", "upi-grad"): columns(0.5)}, lines)
    assert [check.outcome for check in verdict.checks] == ["passed", "inconclusive", "failed"]
    assert (verdict.outcome, verdict.exit_code) == (Outcome.FAILED, 1)


@pytest.mark.parametrize(("mean", "code"), [(0.9, 0), (0.1, 1), (0.6, 3)])
def test_all_outputs_agree(mean: float, code: int) -> None:
    verdict = judged(OVERLAP, columns(mean))
    assert verdict.exit_code == code
    plain = json.loads(json.dumps(verdict.to_dict()))
    assert (plain["exit_code"], plain["outcome"]) == (code, verdict.outcome)
    suite = next(iter(JUnitXml.fromstring(junit(verdict))))
    assert {0: (0, 0), 1: (1, 0), 3: (0, 1)}[code] == (suite.failures, suite.skipped)
    assert suite.tests == 1
    text = card(verdict, model=MODEL, dataset="d", tables=[], flags=[], command="upi audit")
    assert {0: "| pass |", 1: "| **FAIL** |", 3: "| inconclusive |"}[code] in text
    assert verdict.headline in text
    assert plain["headline"].startswith({0: "Passed", 1: "Failed", 3: "Inconclusive"}[code])


def test_names_stay_text_in_the_card() -> None:
    verdict = judged(OVERLAP, columns(0.9))
    model = {**MODEL, "arch": "a|b<script>`x`\n# head"}
    text = card(verdict, model=model, dataset='d"]', tables=[], flags=[], command="upi")
    assert "<script>" not in text.split("---")[2]
    assert "\n# head" not in text


def test_the_table_of_exit_codes_is_the_one_that_holds() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/audit.md").read_text()
    assert {
        int(code): text for code, text in re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    } == CODES
