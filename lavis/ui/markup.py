"""HTML of records, from templates that escape everything a corpus says."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis.common.pages import page_environment, regions_script, regions_style
from lavis.ui.label.labelling import LabelView

FOLDER = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> Any:
    return page_environment(FOLDER)


def render(template: str, **values: Any) -> str:
    """Return a template of this package with its values, as a Gradio component may hold it."""
    text: str = _environment().get_template(template).render(**values)
    # Gradio puts the value into its own template, which fills `@children`, `${}` and `{{}}`.
    for mark, entity in (("@", "&#64;"), ("$", "&#36;"), ("{", "&#123;"), ("}", "&#125;")):
        text = text.replace(mark, entity)
    return text


def label_image(view: LabelView) -> str:
    """Return the image with its regions and their names, or that the queue is done."""
    return render("label_picture.html.jinja", view=view)


def label_text(view: LabelView, serial: int = 0) -> str:
    """Return question, answer and rationale with coloured region numbers, and what was said.

    Args:
        serial: of the answer; the page's script waits for another one.
    """
    return render("label_text.html.jinja", view=view, serial=serial)


def label_refused(why: str, annotators: Sequence[str]) -> str:
    """Return why nobody can label, with a link for each annotator."""
    return render("label_refused.html.jinja", why=why, annotators=annotators)


def label_agreement(report: Mapping[str, Any]) -> str:
    """Return a table of how far people agree; see `agreement.agreement_report`."""
    return render("label_agreement.html.jinja", report=report)


def label_help(steps: int) -> str:
    """Return what the keys do; scores have so many steps."""
    return render("label_help.html.jinja", steps=steps, last="QWERT"[steps - 1])


def label_progress(view: LabelView) -> str:
    """Return the progress bar."""
    return render("label_progress.html.jinja", view=view)


def message(text: str, kind: str = "note") -> str:
    """Return a line of text; `kind` is `note` or `warning`."""
    return render("message.html.jinja", text=text, kind=kind)


def style() -> str:
    """Return the style sheet of all pages."""
    return regions_style() + (FOLDER / "pages.css").read_text(encoding="utf-8")


def label_style() -> str:
    """Return the style sheet of the labelling page."""
    return style() + (FOLDER / "label.css").read_text(encoding="utf-8")


def script() -> str:
    """Return the script of all pages, as a head element."""
    return f"<script>{regions_script()}</script>"


def browse_style() -> str:
    """Return the style sheet of the browser page."""
    return style() + (FOLDER / "browse.css").read_text(encoding="utf-8")


def browse_script() -> str:
    """Return the script of the browser page, as head elements."""
    return f"{script()}<script>{(FOLDER / 'browse.js').read_text(encoding='utf-8')}</script>"


def label_keys() -> str:
    """Return the script that maps keys to the labelling page's buttons."""
    keys = (FOLDER / "label_keys.js").read_text(encoding="utf-8")
    return f"{script()}<script>{keys}</script>"
