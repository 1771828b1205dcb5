"""The report in a real browser: no error, every control works, A4, and accessible to everyone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.browser import Browser
from helpers.progress import ignore_progress

from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.drift.gates import check_gates, read_gates
from edgel3_tflm.drift.report.write import HTML_NAME, write_report
from edgel3_tflm.runtime.deployment import Deployment


@pytest.fixture(scope="module")
def page(tiny_int8: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(5)
    labelled = []
    for number in range(16):
        # A name that is markup, if it is not shown as text.
        path = clips / f"{number}<b>&amp;$x$.wav"
        tone = np.sin(np.arange(16_000) * (0.05 + 0.05 * (number % 2)))
        soundfile.write(path, 0.3 * tone + rng.normal(0, 0.05, 16_000), 8000)
        labelled.append(LabelledClip(path, "low" if number % 2 else "high", number // 8))
    report = compare(
        tiny_int8,
        [],
        runtimes=["litert-builtin", "engine", "node"],
        labelled=labelled,
        hop_s=0.5,
        progress=ignore_progress,
    )
    results = check_gates(report, read_gates(["cosine_p5=0.9"], ["relative_l2=1e-6"]))
    directory = tmp_path_factory.mktemp("report") / "drift"
    write_report(report, directory, results)
    return directory / HTML_NAME


def test_the_page_is_one_file_of_at_most_six_megabytes(page: Path) -> None:
    assert page.stat().st_size < 6e6


def test_every_chart_is_drawn_twice_and_shows_names_on_hover(browser: Browser, page: Path) -> None:
    found = browser.evaluate(
        page,
        """
        const live = [...document.querySelectorAll(".live")];
        const text = (each) => each.closest("figure").textContent;
        const clips = live.find((each) => text(each).includes("The worst window is"));
        const count = (each, what) => each.querySelectorAll(what).length;
        const plain = [...document.querySelectorAll(".static")];
        Plotly.Fx.hover(clips, [{ curveNumber: 0, pointNumber: 2 }]);
        await new Promise((resolve) => setTimeout(resolve, 300));
        return {
          drawn: live.map((each) => count(each, ".point, .hm, .js-line")),
          shown: live.every((each) => each.offsetHeight > 100),
          static: plain.map((each) => getComputedStyle(each).display),
          paths: plain.map((each) => count(each, "path, use, image")),
          hover: clips.querySelector(".hoverlayer").textContent,
          titles: [...document.querySelectorAll(".finding")].map((each) => each.textContent),
        };
        """,
    )
    assert len(found["drawn"]) == 4 + 4 + 2 + 4  # first screen, windows, layers and steps, worst
    assert min(found["drawn"]) > 0
    assert found["shown"]
    assert set(found["static"]) == {"none"}
    assert min(found["paths"]) > 10  # an empty plot's frame has fewer
    assert re.search(r"\d+<b>&amp;\$x\$\.wav", found["hover"])
    assert all(found["titles"])


def test_the_theme_changes_the_page_and_its_charts(browser: Browser, page: Path) -> None:
    found = browser.evaluate(
        page,
        """
        const look = () => [
          getComputedStyle(document.body).backgroundColor,
          getComputedStyle(document.querySelector(".live .xtick text")).fill,
          document.getElementById("theme").textContent,
        ];
        const before = look();
        document.getElementById("theme").click();
        const after = look();
        document.getElementById("theme").click();
        return [before, after, look()];
        """,
    )
    before, after, again = found
    assert before == ["rgb(255, 255, 255)", "rgb(27, 33, 38)", "Dark colours"]
    assert after == ["rgb(20, 24, 27)", "rgb(232, 236, 239)", "Light colours"]
    assert again == before


def test_a_click_sorts_a_table_and_text_filters_it(browser: Browser, page: Path) -> None:
    found = browser.evaluate(
        page,
        """
        const tables = [...document.querySelectorAll("table")];
        const table = tables.find((each) => each.caption.textContent.startsWith("Clips"));
        const rows = () => [...table.tBodies[0].rows];
        const column = (number) => rows().map((row) => row.cells[number].textContent);
        const button = (number) => table.tHead.rows[0].cells[number].querySelector("button");
        const titles = [...table.tHead.rows[0].cells].map((each) => each.textContent);
        const sqnr = titles.indexOf("SQNR, dB");
        button(sqnr).click();
        const rising = column(sqnr);
        button(sqnr).click();
        const falling = column(sqnr);
        const sorted = table.tHead.rows[0].cells[sqnr].getAttribute("aria-sort");
        button(0).click();
        const names = column(0);
        const input = table.closest(".table").querySelector("input");
        input.value = "HIGH";
        input.dispatchEvent(new Event("input"));
        const shown = rows().filter((row) => !row.hidden);
        return {
          rising, falling, sorted, names, shown: shown.map((row) => row.cells[1].textContent),
          buttons: tables.every((each) =>
            [...each.tHead.rows[0].cells].every((head) => head.querySelector("button"))),
        };
        """,
    )
    rising = [float(each) for each in found["rising"]]
    assert rising == sorted(rising)
    assert [float(each) for each in found["falling"]] == sorted(rising, reverse=True)
    assert found["sorted"] == "descending"
    assert found["names"] == sorted(found["names"])
    assert found["shown"] == 8 * ["high"]
    assert found["buttons"]


def test_the_contents_lead_to_every_section(browser: Browser, page: Path) -> None:
    found = browser.evaluate(
        page,
        """
        return [...document.querySelectorAll("nav a")].map((each) =>
          document.querySelector(each.getAttribute("href")).textContent);
        """,
    )
    assert found[0] == "Verdict"
    assert {"Boards", "Runtimes", "Layer by layer", "Downstream", "Clips"} <= set(found)


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, page: Path, theme: str, width: int) -> None:
    assert browser.find_violations(page, theme=theme, width=width) == []


@pytest.mark.parametrize("width", [390, 760, 1200])
def test_nothing_is_wider_than_the_window(browser: Browser, page: Path, width: int) -> None:
    found = browser.evaluate(page, "return document.documentElement.scrollWidth;", width=width)
    assert found <= width


def test_the_print_style_fits_on_a4(browser: Browser, page: Path) -> None:
    wide = browser.measure_print(page)
    assert wide["outside"] == []
    assert wide["live"] == 0
    assert wide["static"] == wide["charts"]
    pages = browser.print(page)
    assert {(round(width), round(height)) for width, height in pages} == {(595, 842)}  # in points
    assert 3 <= len(pages) <= 20


def test_the_page_is_complete_without_scripts(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    plain = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "hidden>Dark" in plain
    (tmp_path / "plain.html").write_text(plain)
    found = browser.evaluate(
        tmp_path / "plain.html",
        """
        return [...document.querySelectorAll(".static svg")].map((each) => each.clientHeight);
        """,
    )
    assert len(found) == 14
    assert min(found) > 100


def test_the_first_screen_answers_four_questions(browser: Browser, page: Path) -> None:
    browser.screenshot(page, "drift-light", width=1200, height=1100)
    browser.screenshot(page, "drift-dark", width=1200, height=1100, theme="dark")
    browser.screenshot(page, "drift-phone", width=500, height=2200)
    found = browser.evaluate(
        page,
        """
        const answers = document.getElementById("answers");
        return {
          questions: [...answers.querySelectorAll("h2")].map((each) => each.textContent),
          charts: [...answers.querySelectorAll(".answer")].map((each) =>
            each.querySelectorAll("figure").length),
          text: answers.textContent,
        };
        """,
    )
    assert len(found["questions"]) == 4
    assert found["charts"] == [1, 1, 1, 1]
    assert "Fails 3 of 6 limits" in found["text"]
    assert not re.search(r"\bnan\b", found["text"])


def test_an_error_and_a_violation_are_detected(browser: Browser, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text("<html><body><img src='data:,'><script>console.error('no')</script></body>")
    with pytest.raises(AssertionError, match="CONSOLE"):
        browser.evaluate(spoilt, "return 1;")
    picture = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
    spoilt.write_text(f"<!doctype html><html><body><img src='{picture}'>")
    found = json.dumps(browser.find_violations(spoilt, theme="light", width=600))
    assert "image-alt" in found
    assert "html-has-lang" in found
