"""The page of runs that generate text about images: figures, money, and a sample of cards.

A card is an image with its regions and the texts about it, kept or not. Only the sample's images
are read, when the run is over; a card whose image cannot be read says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis.common.errors import RecordError
from lavis.common.storage.atomic import write_text
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.lck.marks import RegionMark
from lavis.datasets.lck.scenes import SceneRegion, marked_image, marks_without_image
from lavis.datasets.scene_views import SceneView
from lavis.tasks.knowledge.reasons import ReasonCounts, Verdict
from lavis.tasks.report import ExampleRows, ReportImage, image_uri, render

TEMPLATE = "words.html.jinja"
_MAX_ITEMS = 12  # of a card
_MONEY = {
    "requests_sent": "requests sent",
    "prompt_tokens": "tokens of prompts",
    "completion_tokens": "tokens of replies",
    "cost": "cost",
    "requests_of_unknown_cost": "requests of unknown cost, counted at their bound",
    "requests_reserved": "requests that a server still works on",
    "tokens_reserved": "tokens set aside for them",
    "cost_reserved": "cost set aside for them",
}


@dataclass(frozen=True)
class CardItem:
    """A text about an image, or the reason why it is missing.

    Attributes:
        verdict: its outcome.
        parts: (name, text) such as question and answer; regions stand in texts as `[0]`.
        source: its prompt style or stage.
    """

    verdict: Verdict
    parts: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""
    source: str = ""


@dataclass(frozen=True)
class Card:
    """An image of the sample.

    Attributes:
        title: its name.
        image: with its regions drawn, or None; `problem` says why.
        marks: its regions.
        items: what is shown of it; `more` are not.
        crops: further images that a model saw beside it.
    """

    title: str
    image: ReportImage | None
    problem: str
    marks: tuple[RegionMark, ...]
    items: list[CardItem]
    more: int = 0
    crops: tuple[ReportImage, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of figures; the first column is text, with `has_examples` the last one, too."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    has_examples: bool = False


def make_card(
    root: ImageRoot | None,
    name: str,
    regions: Sequence[SceneRegion],
    items: Sequence[CardItem],
    *,
    view: Callable[[], SceneView | None] = lambda: None,
) -> Card:
    """Return the card of an image, without the image where `root` is None.

    Args:
        view: what a model saw of it, to be shown as it is; None draws the regions.
    """
    image, problem = None, ""
    crops: tuple[ReportImage, ...] = ()
    marks: tuple[RegionMark, ...] = ()
    try:
        marks = marks_without_image(regions)
        if (seen := view()) is not None:
            image, *rest = (ReportImage(image_uri(one), one.size) for one in seen.images)
            crops = tuple(rest)
        elif root is not None:
            drawn, marks = marked_image(root, name, regions)
            image = ReportImage(image_uri(drawn), drawn.size, marks)
    except (RecordError, OSError) as error:
        problem = str(error)
    more = max(0, len(items) - _MAX_ITEMS)
    return Card(name, image, problem, marks, list(items[:_MAX_ITEMS]), more, crops)


def write_page(
    path: Path,
    *,
    title: str,
    status: str,
    tiles: Sequence[tuple[Any, str]],
    tables: Iterable[Table],
    gallery: ExampleRows,
    card_of: Callable[[dict[str, Any]], Card],
    note: str = "",
) -> None:
    """Write the page.

    Args:
        status: how the run ended, in a sentence.
        tiles: (figure, what it counts) of the first row.
        tables: those without rows are left out.
        gallery: the sample of images.
        note: above the cards.
    """
    page = render(
        TEMPLATE,
        title=title,
        status=status,
        tiles=tiles,
        tables=[table for table in tables if table.rows],
        galleries={name: list(map(card_of, rows)) for name, rows in gallery.by_title().items()},
        note=note,
    )
    write_text(path, page)


def money_table(spent: Mapping[str, Any]) -> Table:
    """Return what was spent over all starts of the folder, without zero amounts."""
    rows = [
        [_MONEY.get(key, key), f"{value:.4f}" if key.startswith("cost") else value]
        for key, value in spent.items()
        if value
    ]
    return Table("Money and tokens", ["over all starts", "amount"], rows)


def reason_tables(
    reasons: ReasonCounts, rejected: Mapping[str, int], left: Mapping[str, int]
) -> list[Table]:
    """Return the reasons of a summary with their first examples, the most frequent first."""
    tables = []
    for title, verdict, counts in (("Rejects", "rejected", rejected), ("Left", "left", left)):
        rows = [
            [phrase, count, reasons.examples.get((verdict, phrase), "")]
            for phrase, count in sorted(counts.items(), key=lambda item: -item[1])
        ]
        tables.append(Table(title, ["reason", "count", "first example"], rows, has_examples=True))
    return tables
