"""The page of an audit in a browser: every control is operated, nothing is blank, names stay text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.cli.test_audit import TOML
from tests.cli.test_command_line import SLICE, run
from upi.report import build_report
from upi.results.folder import RunFolder

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the chromium of Debian's packages"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
EVIL = "$\\frac$</script><img src=x onerror=\"document.title='owned'\">"
CELL = "section.cell:not([hidden])"
MOVE = "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }"
OTHER = "([where, text]) => document.querySelector(where).innerText !== text"
BACKGROUND = "getComputedStyle(document.querySelector('main')).backgroundColor"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an audit at two radii, whose classes have hostile names."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPI_CACHE", str(folder / "cache"))
        run("train", *SLICE, "--epochs", "3", "--out", folder / "train")
        (folder / "audit.toml").write_text(TOML.format(model=folder / "train"))
        radii = ("--eps", "0.5", "--eps", "1")
        run("audit", "--config", folder / "audit.toml", *radii, "--out", folder / "run", code=1)
    config = json.loads((folder / "run" / "config.json").read_text())
    config["classes"] = [f"{EVIL}{number}" for number in range(10)]
    (folder / "run" / "config.json").write_text(json.dumps(config))
    return build_report(RunFolder(folder / "run"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    """The page, opened; no error and no request to anywhere until the end of the test."""
    problems: list[str] = []
    opened = browser.new_page(viewport={"width": 1100, "height": 900})
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: problems.append(request.url))
    opened.goto(file.as_uri())
    opened.wait_for_selector(f"{CELL} .tile canvas")
    yield opened
    opened.close()
    assert [each for each in problems if not each.startswith(("file:", "data:"))] == []


def shot(page: Any) -> NDArray[np.float64]:
    """The gallery as grey values."""
    content = page.locator(f"{CELL} .tiles").screenshot()
    return np.asarray(Image.open(BytesIO(content)).convert("L"), dtype=np.float64)


def test_names_stay_text_and_the_file_is_small(page: Any, file: Path) -> None:
    assert file.stat().st_size < 3_000_000
    assert "owned" not in page.title()
    assert EVIL in page.locator(f"{CELL} .tile figcaption").first.inner_text()


def test_sliders_and_overlay_change_the_pictures(page: Any) -> None:
    before = shot(page)
    assert before.std() > 10  # not blank
    for control in (".split-image", ".split-map"):
        page.locator(f"{CELL} {control}").evaluate(MOVE, "100")
        now = shot(page)
        assert np.abs(now - before).max() > 10
        before = now
    page.locator(f"{CELL} .overlay").check()
    assert np.abs(shot(page) - before).max() > 10


def test_all_images_are_reached_in_every_order(page: Any) -> None:
    caption, place = f"{CELL} .tile figcaption", f"{CELL} .place"
    first, where = page.locator(caption).first.inner_text(), page.locator(place).inner_text()
    count = int(where.split(" of ")[1].split()[0])
    page.locator(f"{CELL} .order").select_option("least")
    page.wait_for_function(OTHER, arg=[caption, first])
    seen = set(page.locator(caption).all_inner_texts())
    while page.locator(place).inner_text().split(" of ")[0].split(" to ")[1] != str(count):
        now = page.locator(place).inner_text()
        page.locator(f"{CELL} .next").click()
        page.wait_for_function(OTHER, arg=[place, now])
        seen |= set(page.locator(caption).all_inner_texts())
    assert len(seen) == count
    page.locator(f"{CELL} .previous").click()
    page.locator(f"{CELL} .class").select_option(index=1)
    page.wait_for_function(OTHER, arg=[place, where])
    label = page.locator(f"{CELL} .class").input_value()
    assert all(text.startswith(f"{label},") for text in page.locator(caption).all_inner_texts())


def test_the_radius_slider_goes_through_the_fits(page: Any) -> None:
    before = page.locator(f"{CELL} h3").inner_text()
    assert before.endswith("1")
    page.locator("#radius").evaluate(MOVE, "0")
    page.wait_for_selector(f"{CELL} .tile canvas")
    assert page.locator(f"{CELL} h3").inner_text().endswith("0.5")
    assert page.locator("section.cell:visible").count() == 1
    assert shot(page).std() > 10


def test_tables_are_sorted_and_filtered(page: Any) -> None:
    rows = page.locator(f"{CELL} table.sortable tbody tr:visible")
    count = rows.count()
    button = page.locator(f"{CELL} table.sortable thead button").nth(1)
    for reverse in (True, False):
        button.click()
        cells = page.locator(f"{CELL} table.sortable tbody tr td:nth-child(2)").all()
        values = [float(cell.get_attribute("data-value")) for cell in cells]
        assert values == sorted(values, reverse=reverse)
    page.locator("#filter").fill("noise")
    assert 0 < rows.count() < count


def test_it_is_narrow_dark_printable_and_driven_by_keys(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(BACKGROUND) == "rgb(17, 24, 39)"
    page.emulate_media(media="print")
    assert page.locator("section.cell:visible").count() == 2
    page.emulate_media(media="screen")
    page.locator("#radius").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(f"{CELL} h3").inner_text().endswith("0.5")


def test_it_is_readable_without_scripts(browser: Any, file: Path) -> None:
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(file.as_uri())
    assert plain.locator("section.cell table tbody tr").first.is_visible()
    assert plain.locator("section.cell:visible").count() == 2
    assert not plain.locator(".gallery").first.is_visible()
