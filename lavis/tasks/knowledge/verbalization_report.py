"""The page of a verbalization: what stages said of images, what is missing, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis.datasets.files.images import ImageRoot
from lavis.datasets.lck.scenes import PageRegion, region_entries
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
    "whole": "Images with all that was asked",
    "missing": "Images that lack something",
    "left": "Images with texts that are left",
    "rejected": "Images that were rejected",
}
_MAX_PARTS = 24  # texts of a card


class VerbalizationReport:
    """Takes note of images while results are written; then writes the page.

    Args:
        root: of the images.
        count: images on the page.
    """

    def __init__(self, root: ImageRoot, count: int) -> None:
        self._root = root
        self._gallery = ExampleRows(count, TITLES, _kind)
        self._examples = ReasonExamples()

    def note(
        self,
        row: int,
        image: str,
        record: Mapping[str, Any] | None,
        problems: Sequence[Mapping[str, Any]],
    ) -> None:
        """Take note of an image; its record is None where it was rejected."""
        self._gallery.offer(row, {"image": image, "record": record, "problems": problems})
        for problem in problems:
            verdict = "left" if "left" in problem else "rejected"
            example = f"{image}: {problem['reason']}"
            self._examples.note(problem["stage"], problem["reason"], verdict, example)

    def write(self, path: Path, summary: Mapping[str, Any]) -> None:
        """Write the page."""
        maker = CardMaker(self._root.root, follow_symlinks=self._root.follow_symlinks)
        galleries = {
            title: [_card(maker, image) for image in images]
            for title, images in self._gallery.by_title().items()
        }
        write_page(
            path,
            title="Images in words",
            status=_status(summary),
            tiles=[
                (summary["pictures"], "pictures"),
                (summary["written"], "written"),
                (summary["rejected"], "rejected"),
                (summary["regions"], "regions"),
                (sum(summary["reasons"].values()), "rejects"),
                (summary["left"], "texts left"),
            ],
            tables=[
                _stages(summary["stages"]),
                money_table(summary["spent"]),
                self._examples.table("Rejects", "rejected", summary["reasons"]),
                self._examples.table("Left", "left", summary["left_by_reason"]),
            ],
            galleries=galleries,
        )


def _kind(image: Mapping[str, Any]) -> str:
    if image["record"] is None:
        return "rejected"
    if any("left" in problem for problem in image["problems"]):
        return "left"
    return "missing" if image["problems"] else "whole"


def _status(summary: Mapping[str, Any]) -> str:
    if summary["complete"]:
        return "Complete: every text is there, or set aside with its reason."
    if summary["left"]:
        return f"Not complete: {plural(summary['left'], 'text')} left for the next start."
    return "Not one image was described by one of the stages."


def _stages(stages: Mapping[str, Mapping[str, int]]) -> Table:
    kinds = {
        "described": "images described",
        "failed": "nothing of use",
        "endpoint": "refused by the server",
        "left": "left",
        "picture": "rejected images",
    }
    rows = [[name, *(counts.get(kind, 0) for kind in kinds)] for name, counts in stages.items()]
    rows[0][1] = None  # the images' own stage describes nothing
    return Table("By stage", ["stage", *kinds.values()], rows)


def _card(maker: CardMaker, image: Mapping[str, Any]) -> Card:
    record = image["record"] or {}
    entries = region_entries(record) if record else {}
    regions = [
        PageRegion(number, tuple(entry["boxes"][0][:4]), str(entry.get("obj_guess") or ""))
        for number, entry in entries.items()
    ]
    parts = _parts(record, entries)
    items = [Item("kept", parts[:_MAX_PARTS])] if parts else []
    for problem in image["problems"]:
        verdict: Verdict = "left" if "left" in problem else "rejected"
        items.append(Item(verdict, reason=problem["reason"], source=problem["stage"]))
    return maker.card(str(image["image"]), regions, items)


def _parts(record: Mapping[str, Any], entries: Mapping[int, Any]) -> list[tuple[str, str]]:
    parts = [("caption", str(text)) for text in record.get("captions", [])]
    parts += [("narrative", str(text)) for text in record.get("narratives", [])]
    for kind, tags in record.get("concepts", {}).items():
        parts.append((str(kind), ", ".join(map(_word, tags))))
    for number, entry in entries.items():
        said = [entry.get("caption") or "", ", ".join(map(_word, entry.get("attributes", [])))]
        if any(said):
            parts.append(("region", f"[{number}] {'; '.join(filter(None, said))}"))
    for pair in record.get("dynamic", []):
        parts += [("question", str(pair["question"])), ("answer", str(pair["answer"]))]
    return [(name, text) for name, text in parts if text]


def _word(tag: Any) -> str:
    return str(tag["text"]) if isinstance(tag, Mapping) else str(tag)
