"""HTML, styles and scripts of the pages, from templates that escape all text of a corpus."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from lavis.common.pages import page_environment, regions_script, regions_style

FOLDER = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> Any:
    return page_environment(FOLDER)


def render(template: str, **values: Any) -> str:
    """Return `templates/<template>.html.jinja`, rendered so that a Gradio component may hold it."""
    text: str = _environment().get_template(f"{template}.html.jinja").render(**values)
    # Gradio puts the value into its own template, which fills `@children`, `${}` and `{{}}`.
    for mark, entity in (("@", "&#64;"), ("$", "&#36;"), ("{", "&#123;"), ("}", "&#125;")):
        text = text.replace(mark, entity)
    return text


def message(text: str, kind: str = "note") -> str:
    """Return a line of text; `kind` is `note` or `warning`."""
    return render("message", text=text, kind=kind)


def style(page: str) -> str:
    """Return the style sheet of a page (`label` or `browse`)."""
    own = [(FOLDER / name).read_text(encoding="utf-8") for name in ("pages.css", f"{page}.css")]
    return regions_style() + "".join(own)


def script(page: str) -> str:
    """Return the scripts of a page (`label` or `browse`), as head elements."""
    own = (FOLDER / f"{page}.js").read_text(encoding="utf-8")
    return f"<script>{regions_script()}</script><script>{own}</script>"
