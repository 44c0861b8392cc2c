"""The page of a benchmark run: tables, and questions with their images, weights and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lavis.common.errors import DataError
from lavis.tasks.report import image_uri, render

if TYPE_CHECKING:
    from lavis.generators.store import ImageStore

TEMPLATE = "visual_questions.html.jinja"
TITLES = {
    "helped": "Right with images, wrong without",
    "hurt": "Wrong with images, right without",
    "other": "Others, drawn at random",
}


def effect(payload: Mapping[str, Any]) -> str:
    """Return the effect of images on a question: `helped`, `hurt` or `other`."""
    correct = payload["marks"]
    column = "pictures" if "pictures" in correct else "single"
    if column not in correct:
        return "other"
    rule = next(iter(correct["text"]))
    before, after = (sum(correct[name][rule]) for name in ("text", column))
    return "helped" if after > before else "hurt" if after < before else "other"


def render_page(
    results: Mapping[str, Any],
    examples: Mapping[str, Sequence[Mapping[str, Any]]],
    store: ImageStore | None,
    *,
    parts: Sequence[str],
) -> str:
    """Return the page; images that are gone from the cache are left out.

    Args:
        examples: title -> result rows; their images get a `uri`.
        parts: of the results that stand below its groups.
    """
    for rows in examples.values():
        for image in (image for row in rows for one in row.get("pictures", []) for image in one):
            image["uri"] = _uri(image, store)
    return render(
        TEMPLATE,
        results=results,
        parts={**results["groups"], **{name: results[name] for name in parts if name in results}},
        examples=examples,
        credit=store.generator.credit if store is not None else None,
    )


def _uri(image: Mapping[str, Any], store: ImageStore | None) -> str | None:
    if store is None or store.makes_features:
        return None
    try:
        key = store.key(image["prompt"], image["index"], image["seed"])
        return image_uri(store.image(key))
    except DataError:
        return None
