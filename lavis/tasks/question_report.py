"""The page of a benchmark run: tables, and questions with their pictures, weights and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis.common.errors import DataError
from lavis.common.storage import write_text
from lavis.tasks.gallery import Gallery
from lavis.tasks.report import picture_uri, report_environment

if TYPE_CHECKING:
    from lavis.generators.store import PictureStore

TEMPLATE = "visual_questions.html.jinja"
TITLES = {
    "helped": "Right with pictures, wrong without",
    "hurt": "Wrong with pictures, right without",
    "other": "Others, drawn at random",
}


def effect(payload: Mapping[str, Any]) -> str:
    """Return what pictures did to a question: `helped`, `hurt` or `other`."""
    marks = payload["marks"]
    column = "pictures" if "pictures" in marks else "single"
    if column not in marks:
        return "other"
    rule = next(iter(marks["text"]))
    before, after = (sum(marks[name][rule]) for name in ("text", column))
    return "helped" if after > before else "hurt" if after < before else "other"


def write_page(
    path: Path,
    results: dict[str, Any],
    gallery: Gallery,
    store: PictureStore | None,
    *,
    parts: Sequence[str],
) -> None:
    """Write the page; pictures that are gone from the cache are left out.

    Args:
        parts: of the results that stand below its groups.
    """
    examples = gallery.chosen()
    for questions in examples.values():
        for question in questions:
            for pictures in question.get("pictures", []):
                for picture in pictures:
                    picture["uri"] = _uri(picture, store)
    listed = {name: results[name] for name in parts if name in results}
    credit = store.generator.credit if store is not None else None
    page = (
        report_environment()
        .get_template(TEMPLATE)
        .render(
            results=results,
            parts={**results["groups"], **listed},
            examples=examples,
            credit=credit,
        )
    )
    write_text(path, page)


def _uri(picture: Mapping[str, Any], store: PictureStore | None) -> str | None:
    if store is None or store.makes_features:
        return None
    try:
        key = store.key(picture["prompt"], picture["index"], picture["seed"])
        return picture_uri(store.picture(key))
    except DataError:
        return None
