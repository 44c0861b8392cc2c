"""The page of a benchmark run: tables, and questions with their images, weights and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis.common.errors import DataError
from lavis.common.storage.atomic import write_text
from lavis.tasks.report import ExampleRows, image_uri, render

if TYPE_CHECKING:
    from lavis.generators.store import ImageStore

TEMPLATE = "visual_questions.html.jinja"
TITLES = {
    "helped": "Right with images, wrong without",
    "hurt": "Wrong with images, right without",
    "other": "Others, drawn at random",
}


def effect(payload: Mapping[str, Any]) -> str:
    """Return what images did to a question: `helped`, `hurt` or `other`."""
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
    rows: ExampleRows,
    store: ImageStore | None,
    *,
    parts: Sequence[str],
) -> None:
    """Write the page; images that are gone from the cache are left out.

    Args:
        parts: of the results that stand below its groups.
    """
    examples = rows.by_title()
    for questions in examples.values():
        for question in questions:
            for images in question.get("pictures", []):
                for image in images:
                    image["uri"] = _uri(image, store)
    listed = {name: results[name] for name in parts if name in results}
    credit = store.generator.credit if store is not None else None
    parts_of_page = {**results["groups"], **listed}
    page = render(TEMPLATE, results=results, parts=parts_of_page, examples=examples, credit=credit)
    write_text(path, page)


def _uri(image: Mapping[str, Any], store: ImageStore | None) -> str | None:
    if store is None or store.makes_features:
        return None
    try:
        key = store.key(image["prompt"], image["index"], image["seed"])
        return image_uri(store.image(key))
    except DataError:
        return None
