"""What all HTML pages share: templates that escape everything, and regions' marks in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "templates"
_TAG = re.compile(r"\[([0-9]{1,4})\]")


def page_environment(folder: Path) -> Any:
    """Return the jinja2 environment of a package's pages: escaped, strict, with shared templates.

    `regions.html.jinja` has the macros `picture`, `names`, `chip` and `text`; they take the marks
    of `lavis.datasets.lck.marks`. A page of its own includes `regions.css` in its style and
    `regions.js` in a script.

    Args:
        folder: of the package's templates.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["pieces"] = text_pieces
    return environment


def text_pieces(text: str) -> list[str | int]:
    """Return a text in pieces: words as str, region numbers such as `[0]` as int."""
    parts = _TAG.split(str(text))
    return [int(p) if place % 2 else p for place, p in enumerate(parts) if place % 2 or p]


def regions_style() -> str:
    """Return the style sheet of regions' marks, for a page that is not made of templates."""
    return (FOLDER / "regions.css").read_text(encoding="utf-8")


def regions_script() -> str:
    """Return the script that lights up a region in text and image, and enlarges images."""
    return (FOLDER / "regions.js").read_text(encoding="utf-8")
