"""The report in a real browser: complete, without scripts, errors or empty plots."""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
from helpers.progress import ignore_progress

from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.drift.gates import check_gates, read_gates
from edgel3_tflm.drift.report import HTML_NAME, write_report
from edgel3_tflm.runtime.deployment import Deployment

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "needs the browser Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def browse(
    chromium: str, page: Path, profile: Path, *what: str
) -> subprocess.CompletedProcess[str]:
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
        " --disable-background-networking --disable-component-update --disable-sync"
        " --enable-logging=stderr"
    )
    done = subprocess.run(
        [chromium, *flags.split(), f"--user-data-dir={profile}", *what, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    # Errors of the page are logged as CONSOLE; other lines are about the browser itself.
    assert "CONSOLE" not in done.stderr
    return done


class Drawings(HTMLParser):
    """Counts the marks of each plot."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[int] = []
        self.scripts = 0
        self.images = 0
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag == "svg":
            self.marks.append(0)
            self._depth += 1
        elif tag == "script":
            self.scripts += 1
        elif tag in {"path", "use", "image"} and self._depth:
            self.marks[-1] += 1
            self.images += tag == "image"

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "svg"


@pytest.fixture(scope="module")
def page(tiny_int8: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(5)
    labelled = []
    for number in range(8):
        path = clips / f"{number}.wav"
        tone = np.sin(np.arange(16_000) * (0.05 + 0.05 * (number % 2)))
        soundfile.write(path, 0.3 * tone + rng.normal(0, 0.05, 16_000), 8000)
        labelled.append(LabelledClip(path, "low" if number % 2 else "high", number // 4))
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


def test_the_page_is_complete(chromium: str, page: Path, tmp_path: Path) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    screenshot = SCREENSHOTS / "drift.png"
    screenshot.unlink(missing_ok=True)
    size = "--window-size=1200,5200"
    browse(chromium, page, tmp_path / "profile", size, f"--screenshot={screenshot}")
    pixels = matplotlib.image.imread(screenshot)[..., :3]
    assert pixels.shape[:2] == (5200, 1200)
    # Text is black on white; only plots and spectrograms have saturated colours.
    saturated = (pixels.max(axis=2) - pixels.min(axis=2)) > 0.3
    assert saturated.mean() > 0.005
    # Every fifth of the page, down to its last heading, contains dark pixels.
    drawn = (pixels < 0.9).any(axis=(1, 2))
    assert all(part.any() for part in np.array_split(drawn[: int(np.flatnonzero(drawn)[-1])], 5))


def test_the_document_holds_full_plots_and_no_script(
    chromium: str, page: Path, tmp_path: Path
) -> None:
    document = browse(chromium, page, tmp_path / "profile", "--dump-dom").stdout
    drawings = Drawings()
    drawings.feed(document)
    assert drawings.scripts == 0
    assert len(drawings.marks) == 4 + 2 + 4  # drift, layers and steps, worst windows
    assert min(drawings.marks[:6]) > 20  # an empty plot's frame and ticks are fewer
    assert drawings.images == 4 + 1  # the spectrograms, and the cloud of single errors
    for heading in ("Boards", "Runtimes", "Layer by layer", "Downstream", "Classes", "Provenance"):
        assert f"<h2>{heading}</h2>" in document
    assert re.search(r"Fails 3 of 6 checks", document)
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", document, flags=re.DOTALL).lower().split()
    assert "MLP 512-128" in document


def test_an_empty_plot_and_a_script_are_detected(chromium: str, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text("<svg><path></path></svg><script>console.error('no')</script>")
    with pytest.raises(AssertionError, match="CONSOLE"):
        browse(chromium, spoilt, tmp_path / "profile", "--dump-dom")
    drawings = Drawings()
    drawings.feed(spoilt.read_text())
    assert (drawings.marks, drawings.scripts) == ([1], 1)
