"""The page of a generation: what was asked, kept, rejected and spent, and images with records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis.common.errors import RecordError
from lavis.datasets.lck.scenes import PageRegion
from lavis.llm.replies.items import FIELDS
from lavis.llm.replies.region_text import render
from lavis.llm.replies.scene import RegionNotes
from lavis.tasks.knowledge.generation import Generation
from lavis.tasks.knowledge.page import (
    Card,
    CardMaker,
    Item,
    ReasonExamples,
    Table,
    Verdict,
    money_table,
    write_page,
)
from lavis.tasks.knowledge.reasons import plural
from lavis.tasks.report import ExampleRows

TITLES = {
    "kept": "Images with records",
    "none": "Images without a record",
    "left": "Images with requests that are left",
}
_SHOWN = 160  # characters of an example in a table


class GenerationReport:
    """Takes note of images while results are written; then writes the page.

    Args:
        generation: whose results they are.
        image_root: folder of the images; None shows none.
        count: images on the page.
    """

    def __init__(self, generation: Generation, image_root: str | None, count: int) -> None:
        self._generation, self._image_root = generation, image_root
        self._gallery = ExampleRows(count, TITLES, _kind)
        self._examples = ReasonExamples()
        self._row, self._image = -1, _empty()

    def note(self, row: int, kept: list[dict[str, Any]], rejects: list[dict[str, Any]]) -> None:
        """Take note of one request's records and rejects; those of an image follow each other."""
        if row != self._row:
            self._offer()
            self._row, self._image = row, _empty()
        self._image["kept"] += kept
        self._image["rejects"] += rejects
        for reject in rejects:
            verdict = "left" if "left" in reject else "rejected"
            self._examples.note("", reject["reason"], verdict, _example(reject))

    def write(self, path: Path, summary: Mapping[str, Any]) -> None:
        """Write the page."""
        self._offer()
        maker = CardMaker(self._image_root)
        galleries = {
            title: [self._card(maker, image) for image in images]
            for title, images in self._gallery.by_title().items()
        }
        note = "Set run.image_root to show the images." if self._image_root is None else ""
        write_page(
            path,
            title="Question, answer and rationale records",
            status=_status(summary),
            tiles=[
                (summary["pictures"], "pictures"),
                (summary["pictures_with_records"], "images with records"),
                (summary["records"], "records"),
                (summary["rejected"], "rejects"),
                (summary["left_for_next_start"], "requests left"),
            ],
            tables=[
                money_table(summary["spent"]),
                _sources(summary["by_source"]),
                self._examples.table("Rejects", "rejected", summary["rejected_by_reason"]),
                self._examples.table("Left", "left", summary["left_by_reason"]),
            ],
            galleries=galleries,
            note=note,
        )

    def _offer(self) -> None:
        if self._image["kept"] or self._image["rejects"]:
            self._gallery.offer(self._row, self._image)

    def _card(self, maker: CardMaker, image: Mapping[str, Any]) -> Card:
        name, regions = self._scene(image["row"])
        items = [_kept(record) for record in image["kept"]]
        items += [_rejected(reject) for reject in image["rejects"]]
        shown = [
            PageRegion(region.id, _box(region), region.name) for region in regions if region.boxes
        ]
        return maker.card(name, shown, items)

    def _scene(self, row: int) -> tuple[str, list[RegionNotes]]:
        """Return an image's name and the regions that one of its requests showed."""
        kinds = len(self._generation.config.prompts)
        found: dict[int, RegionNotes] = {}
        name = f"record {row}"
        for unit in range(row * kinds, (row + 1) * kinds):
            try:
                scene = self._generation.scene(unit)
            except RecordError:
                continue
            name = scene.image
            found |= {region.id: region for region in scene.regions}
        return name, [found[number] for number in sorted(found)]


def _empty() -> dict[str, Any]:
    return {"kept": [], "rejects": []}


def _kind(image: Mapping[str, Any]) -> str:
    if any("left" in reject for reject in image["rejects"]):
        return "left"
    return "kept" if image["kept"] else "none"


def _status(summary: Mapping[str, Any]) -> str:
    if summary["complete"]:
        return "Complete: every request is answered or set aside with its reason."
    why = f" Stopped: {summary['stopped_by']}." if summary["stopped_by"] else ""
    if not summary["left_for_next_start"]:
        return "No request gave a record."
    left, planned = summary["left_for_next_start"], plural(summary["requests_planned"], "request")
    return f"Not complete: {left:,} of {planned} left.{why}"


def _sources(by_source: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = ["prompt style", "requests", "records", "rejects", "tokens of prompts"]
    columns += ["tokens of replies", "tokens a record"]
    keys = ("requests", "records", "rejected", "prompt_tokens", "completion_tokens")
    rows = [
        [name, *(figures[key] for key in keys), _rounded(figures["tokens_per_record"])]
        for name, figures in by_source.items()
    ]
    note = "Requests that are finished; tokens of replies that were read, as the server counted."
    return Table("By prompt style", columns, rows, note)


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _kept(record: Mapping[str, Any]) -> Item:
    parts = [(part, _text(record[part])) for part in FIELDS if record.get(part)]
    return Item("kept", parts, source=record["source"])


def _rejected(reject: Mapping[str, Any]) -> Item:
    item = reject.get("item") or reject
    parts = [(part, _text(item[part])) for part in FIELDS if item.get(part)]
    if reject.get("reply"):
        parts.append(("reply", str(reject["reply"])))
    verdict: Verdict = "left" if "left" in reject else "rejected"
    return Item(verdict, parts, reason=reject["reason"], source=reject["source"])


def _example(reject: Mapping[str, Any]) -> str:
    item = reject.get("item") or reject
    said = " / ".join(_text(item[part]) for part in FIELDS if item.get(part))
    text = said or str(reject.get("reply") or reject["reason"])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _text(value: Any) -> str:
    """Return words and regions as text, each region in brackets of its own."""
    if isinstance(value, str):
        return value
    split: list[Any] = []
    for token in value:
        split += [[number] for number in token] if isinstance(token, list) else [token]
    return render(split)


def _box(region: RegionNotes) -> tuple[float, float, float, float]:
    left, top, right, bottom = region.boxes[0][:4]
    return left, top, right, bottom
