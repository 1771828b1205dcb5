"""Headless Chromium: scripts in a page, screenshots and print, without a driver."""

import json
import re
import subprocess
from dataclasses import dataclass
from html import unescape
from importlib.resources import files
from pathlib import Path
from typing import Any

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr --virtual-time-budget=20000 --no-pdf-header-footer"
)
_A4_MM = 210 - 2 * 14
"""Width of an A4 page without the margins of the print style."""


@dataclass(frozen=True)
class Browser:
    """Chromium with a profile in a directory of its own."""

    command: str
    directory: Path

    def _run(self, page: Path, *what: str, theme: str = "light") -> str:
        done = subprocess.run(
            [
                self.command,
                *_FLAGS.split(),
                f"--blink-settings=preferredColorScheme={int(theme == 'light')}",
                f"--user-data-dir={self.directory / 'profile'}",
                *what,
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        # Errors of the page are logged as CONSOLE; other lines are about the browser itself.
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    def evaluate(
        self, page: Path, script: str, *, theme: str = "light", width: int = 1200, library: str = ""
    ) -> Any:
        """Run the body of an asynchronous function in a page of this width; return its result.

        The page is in a frame, because a window of Chromium has a least width of 500 pixels.
        """
        text = page.read_text(encoding="utf-8")
        if library:
            text += f"<script>{library}</script>"
        text += (
            "<script>addEventListener('load', () => { (async () => {"
            f"{script}"
            "})().then((found) => parent.postMessage(JSON.stringify(found), '*'),"
            " (error) => parent.postMessage(JSON.stringify('error: ' + error), '*')); });</script>"
        )
        inner, outer = self.directory / "inner.html", self.directory / "outer.html"
        inner.write_text(text, encoding="utf-8")
        outer.write_text(
            "<!doctype html><pre id=found></pre><script>addEventListener('message', (event) => {"
            "document.getElementById('found').textContent = event.data; });</script>"
            f"<iframe src=inner.html width={width} height=900 style='border:0'></iframe>"
        )
        document = self._run(outer, "--dump-dom", "--window-size=1400,1000", theme=theme)
        match = re.search(r'<pre id="found">(.*?)</pre>', document, flags=re.DOTALL)
        assert match is not None, document[:2000]
        assert match[1], "the script in the page returned nothing"
        found = json.loads(unescape(match[1]))
        assert not str(found).startswith("error: "), found
        return found

    def find_violations(self, page: Path, *, theme: str, width: int) -> list[Any]:
        """Return what axe-core finds wrong, with the elements."""
        axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        found: list[Any] = self.evaluate(
            page,
            "const found = await axe.run(document, { resultTypes: ['violations'] });"
            "return found.violations.map((each) =>"
            " [each.id, each.nodes.slice(0, 5).map((node) => node.html.slice(0, 200))]);",
            theme=theme,
            width=width,
            library=axe,
        )
        return found

    def measure_print(self, page: Path) -> Any:
        """Apply the print style at the width of A4; return what is wider than the page."""
        return self.evaluate(
            page,
            """
            for (const sheet of document.styleSheets)
              for (const rule of sheet.cssRules)
                if (rule instanceof CSSMediaRule)
                  rule.media.mediaText = rule.media.mediaText === "print" ? "all" : "not all";
            const edge = document.documentElement.clientWidth + 1;
            const isShown = (each) => getComputedStyle(each).display !== "none";
            const count = (name) => [...document.querySelectorAll(name)].filter(isShown).length;
            return {
              outside: [...document.querySelectorAll("main *")]
                .filter((each) => each.getBoundingClientRect().right > edge)
                .map((each) => each.outerHTML.slice(0, 100)).slice(0, 5),
              live: count(".live"), static: count(".static"),
              charts: document.querySelectorAll("figure.chart").length,
            };
            """,
            width=round(_A4_MM * 96 / 25.4),
        )

    def print(self, page: Path) -> list[tuple[float, float]]:
        """Print to PDF and return the size of each page in points."""
        target = self.directory / "page.pdf"
        self._run(page, f"--print-to-pdf={target}")
        boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", target.read_bytes())
        return [(float(width), float(height)) for width, height in boxes]

    def screenshot(
        self, page: Path, name: str, *, width: int, height: int, theme: str = "light"
    ) -> Path:
        """Write a screenshot for a person to look at, and return its path."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        target = SCREENSHOTS / f"{name}.png"
        target.unlink(missing_ok=True)
        self._run(page, f"--window-size={width},{height}", f"--screenshot={target}", theme=theme)
        assert target.is_file()
        return target
