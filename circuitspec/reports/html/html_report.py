"""The report as one HTML file that needs nothing else: no network, no fonts, and no script to be read.

One script, which sorts tables, comes with it; the page's policy names its digest, so that no other can run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING

from circuitspec.reports.views import Page
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    import jinja2

_BACKTICKS = re.compile("`([^`]+)`")


def render_html(page: Page) -> str:
    """The page, ending in a newline. Whatever the file or the prompts say is text on it, never markup."""
    return environment().get_template("report.html.j2").render(page=page)


def environment() -> jinja2.Environment:
    """Templates in which every text is escaped, and characters that cannot be seen are written out.

    They may use `css(FILE)`, `script` with the `script_digest` of its element, `text|coded` (what stands between
    backticks as code) and `picture|drawn(NAME)`, whose ids begin with the name.
    """
    import jinja2
    from markupsafe import Markup, escape

    def coded(text: str) -> Markup:
        return Markup(_BACKTICKS.sub(r"<code>\1</code>", str(escape(visible(text)))))

    def shown(value: object) -> object:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    def read(name: str) -> str:
        return (resources.files("circuitspec.reports.html") / "templates" / name).read_text(encoding="utf-8")

    env = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters["coded"] = coded
    env.filters["drawn"] = lambda picture, name: Markup(picture.inline(name))  # escaped by its writer
    env.globals["css"] = lambda name: Markup(read(name))
    script = read("tables.js")
    env.globals["script"] = Markup(script)
    env.globals["script_digest"] = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    return env
