"""The report of a hypothesis with warnings as a browser shows it, at a desk and on a phone: `make screenshots`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOP = HERE.parent.parent
HYPOTHESIS = TOP / "hypotheses" / "explored" / "ioi-tiny-drafted.circuit.yaml"
DESK, PHONE = 1280, 390  # CSS pixels
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser_path() -> str | None:
    """An installed Chromium or Chrome; None where there is none."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Shown:
    """A page in a browser, with what its console said and what it asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


@contextmanager
def shown(path: Path, width: int, scheme: str = "light") -> Iterator[Shown]:
    """The page of a file at a width, in a light or dark `scheme`."""
    from playwright.sync_api import sync_playwright

    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path(), args=["--no-sandbox"] if as_root else [], chromium_sandbox=not as_root
        )
        try:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            found = Shown(page)
            page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: found.said.append(str(error)))
            page.on("request", lambda request: found.requested.append(request.url))
            page.goto(path.absolute().as_uri())
            yield found
        finally:
            browser.close()


def take(report: Path, folder: Path) -> tuple[Path, ...]:
    """Screenshots of a report into `folder`: the whole page for a desk and a phone, its top for a dark one."""
    pictures = []
    for name, width, scheme in (("desktop", DESK, "light"), ("phone", PHONE, "light"), ("dark", DESK, "dark")):
        with shown(report, width, scheme) as found:
            pictures.append(folder / f"{name}.png")
            found.page.screenshot(path=pictures[-1], full_page=name != "dark")
        _shrink(pictures[-1])
    return tuple(pictures)


def _shrink(path: Path) -> None:
    """The picture in 256 colours, a third of the size: those that are most common as they are, the rest by likeness."""
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    common = sorted(picture.getcolors(picture.width * picture.height) or [], reverse=True)[:128]
    alike = picture.quantize(128, Image.Quantize.FASTOCTREE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(channel for _, colour in common for channel in colour), *alike[: 3 * 128]])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    if browser_path() is None:
        sys.exit("no Chromium found; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        command = ("-m", "circuitspec", "verify", str(HYPOTHESIS.relative_to(TOP)), "--html", str(report))
        subprocess.run([sys.executable, *command], cwd=TOP, check=True, stdout=subprocess.DEVNULL)
        take(report, HERE)


if __name__ == "__main__":
    main()
