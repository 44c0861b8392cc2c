"""Descriptors of all stages to one verbalized record an image, rejects, and the page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis.common.errors import NothingDoneError
from lavis.common.storage.atomic import AtomicFile, write_json
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.files.json_values import json_line
from lavis.datasets.files.records import JsonLinesFile
from lavis.datasets.lck.scenes import region_entries, scene_regions
from lavis.llm.money.ledger import folder_totals
from lavis.tasks.knowledge.page import (
    Card,
    CardItem,
    Table,
    make_card,
    money_table,
    reason_tables,
    write_page,
)
from lavis.tasks.knowledge.reasons import (
    ReasonCounts,
    Verdict,
    count_phrases,
    plural,
    spent_figures,
)
from lavis.tasks.knowledge.stages import FAILURES
from lavis.tasks.report import ExampleRows
from lavis.verbalizers.base import tag_text

LISTS = ("captions", "narratives", "dynamic")
TITLES = {
    "whole": "Images with all that was asked",
    "missing": "Images that lack something",
    "left": "Images with texts that are left",
    "rejected": "Images that were rejected",
}
_KINDS = {"failed": "failed", "refused": "endpoint", "left": "left"}  # of what is missing
_COUNTED = ("regions", "captioned_regions", "attributes", "concepts", *LISTS)
_MAX_PARTS = 24  # texts of a card


def add_descriptors(record: dict[str, Any], descriptors: Mapping[str, Any]) -> None:
    """Add one stage's descriptors of an image to its record."""
    if "region_locations" in descriptors:
        record["region_locations"] = descriptors["region_locations"]
    if "concepts" in descriptors:
        record["concepts"] = {**record.get("concepts", {}), **descriptors["concepts"]}
    for key in LISTS:
        if key in descriptors:
            record[key] = [*record.get(key, []), *descriptors[key]]
    regions = descriptors.get("regions")
    if regions:
        for number, entry in region_entries(record).items():
            described = regions.get(str(number), {})
            if described.get("caption"):
                entry["caption"] = described["caption"]
            words = [tag_text(attribute) for attribute in described.get("attributes", [])]
            if words:
                entry["attributes"] = list(dict.fromkeys([*entry.get("attributes", []), *words]))


def write_results(
    folder: Path, files: Mapping[str, JsonLinesFile], root: ImageRoot, report_examples: int
) -> dict[str, Any]:
    """Write `verbalized.jsonl`, `rejects.jsonl`, `summary.json` and `report.html` in one pass.

    Args:
        folder: of the run.
        files: stage -> its descriptors, with a line for every image; the images' own stage first.
        root: of the images.
        report_examples: images on the page.

    Returns:
        The summary.

    Raises:
        NothingDoneError: no image was described, or none by one of the stages.
    """
    names = list(files)
    counts: Counter[str] = Counter()
    reasons = ReasonCounts()
    by_stage: dict[str, Counter[str]] = {name: Counter() for name in names}
    gallery = ExampleRows(report_examples, TITLES, _kind)
    with (
        AtomicFile(folder / "verbalized.jsonl") as output,
        AtomicFile(folder / "rejects.jsonl") as rejects,
    ):
        for row in range(len(files[names[0]])):
            lines = [file.read(row) for file in files.values()]
            image, record = lines[0]["image"], None
            problems = _problems(names, lines)
            for problem in problems:
                reject = json.dumps({"image": image, "row": row, **problem})
                rejects.write(reject.encode("ascii") + b"\n")
                reason, stage = problem["reason"], problem["stage"]
                reasons.note(_verdict(problem), reason, f"{image}: {reason}", stage)
                by_stage[stage][problem["kind"]] += 1
            if any(problem["rejected"] for problem in problems):
                counts["rejected"] += 1
            else:
                record = _record(lines)
                output.write(json_line(record, ascii_only=True) + b"\n")
                _count(record, counts)
                for name, line in zip(names[1:], lines[1:], strict=True):
                    by_stage[name]["described"] += says_something(line)
            gallery.offer(row, {"image": image, "record": record, "problems": problems})
    silent = [n for n in names[1:] if by_stage[n].total() and not by_stage[n]["described"]]
    left = reasons.left
    summary = {
        "complete": not left and not silent and counts["written"] > 0,
        "stopped_by": None,
        "pictures": len(files[names[0]]),
        **{key: counts[key] for key in ("written", "rejected", *_COUNTED)},
        "reasons": dict(sorted(reasons.rejected.items())),
        "left": left.total(),
        "left_by_reason": dict(sorted(left.items())),
        "stages": {name: dict(sorted(by_stage[name].items())) for name in names},
        "spent": spent_figures(folder_totals(folder)),
    }
    write_json(folder / "summary.json", summary)
    _write_page(folder / "report.html", summary, reasons, gallery, root)
    if not counts["written"]:
        raise NothingDoneError(f"{folder}: every image was rejected; see rejects.jsonl")
    if silent and not left:
        why = {k: count for k, count in reasons.rejected.items() if k.split(":")[0] == silent[0]}
        raise NothingDoneError(
            f"{folder}: not one image was described by stages.{silent[0]} ({count_phrases(why)}); "
            "see rejects.jsonl"
        )
    return summary


def write_stopped(folder: Path, images: int, reason: str, left: Mapping[str, int]) -> None:
    """Write `summary.json` of a run that was stopped; other results stay as they are.

    Args:
        folder: of the run.
        images: of all.
        reason: what stopped it.
        left: stage -> images that it has not described.
    """
    summary = {
        "complete": False,
        "stopped_by": reason,
        "pictures": images,
        "left_of_stages": dict(left),
        "spent": spent_figures(folder_totals(folder)),
    }
    write_json(folder / "summary.json", summary)


def says_something(descriptors: Mapping[str, Any]) -> bool:
    """Return whether a stage's descriptors of an image are not empty."""
    return any(value for key, value in descriptors.items() if key not in ("image", *FAILURES))


def _record(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = dict(lines[0]["record"])
    for descriptors in lines[1:]:
        add_descriptors(record, descriptors)
    for entry in region_entries(record).values():
        entry.setdefault("caption", "")
        entry.setdefault("attributes", [])
    first = {key: record[key] for key in ("image", "region_locations", "width", "height")}
    return {
        **first,
        "concepts": record.get("concepts", {}),
        **{key: record.get(key, []) for key in LISTS},
    }


def _problems(names: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rejects of an image: the image itself, or its missing texts."""
    problems: list[dict[str, Any]] = []
    for name, descriptors in zip(names, lines, strict=True):
        if "reject" in descriptors:
            problem = {"stage": name, "reason": descriptors["reject"], "rejected": True}
            return [{**problem, "kind": "picture"}]
        for key, kind in _KINDS.items():
            for reason in descriptors.get(key, []):
                left = {"left": True} if kind == "left" else {}
                problem = {"stage": name, "reason": reason, "rejected": False, "kind": kind}
                problems.append({**problem, **left})
    return problems


def _count(record: Mapping[str, Any], counts: Counter[str]) -> None:
    entries = region_entries(record).values()
    counts["written"] += 1
    counts["regions"] += len(entries)
    counts["captioned_regions"] += sum(bool(entry["caption"]) for entry in entries)
    counts["attributes"] += sum(len(entry["attributes"]) for entry in entries)
    counts["concepts"] += sum(map(len, record["concepts"].values()))
    for key in LISTS:
        counts[key] += len(record[key])


def _verdict(problem: Mapping[str, Any]) -> Verdict:
    return "left" if "left" in problem else "rejected"


def _kind(image: Mapping[str, Any]) -> str:
    if image["record"] is None:
        return "rejected"
    if any("left" in problem for problem in image["problems"]):
        return "left"
    return "missing" if image["problems"] else "whole"


def _write_page(
    path: Path,
    summary: Mapping[str, Any],
    reasons: ReasonCounts,
    gallery: ExampleRows,
    root: ImageRoot,
) -> None:
    write_page(
        path,
        title="Images in words",
        status=_status(summary),
        tiles=[
            (summary["pictures"], "images"),
            (summary["written"], "written"),
            (summary["rejected"], "rejected"),
            (summary["regions"], "regions"),
            (sum(summary["reasons"].values()), "rejects"),
            (summary["left"], "texts left"),
        ],
        tables=[
            _stages(summary["stages"]),
            money_table(summary["spent"]),
            *reason_tables(reasons, summary["reasons"], summary["left_by_reason"]),
        ],
        gallery=gallery,
        card_of=lambda image: _card(root, image),
    )


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


def _card(root: ImageRoot, image: Mapping[str, Any]) -> Card:
    record = image["record"] or {}
    entries = region_entries(record) if record else {}
    parts = _parts(record, entries)
    items = [CardItem("kept", parts[:_MAX_PARTS])] if parts else []
    for problem in image["problems"]:
        verdict = _verdict(problem)
        items.append(CardItem(verdict, reason=problem["reason"], source=problem["stage"]))
    return make_card(root, str(image["image"]), scene_regions(entries), items)


def _parts(record: Mapping[str, Any], entries: Mapping[int, Any]) -> list[tuple[str, str]]:
    parts = [("caption", str(text)) for text in record.get("captions", [])]
    parts += [("narrative", str(text)) for text in record.get("narratives", [])]
    for kind, tags in record.get("concepts", {}).items():
        parts.append((str(kind), ", ".join(map(tag_text, tags))))
    for number, entry in entries.items():
        texts = [entry.get("caption") or "", ", ".join(map(tag_text, entry.get("attributes", [])))]
        if any(texts):
            parts.append(("region", f"[{number}] {'; '.join(filter(None, texts))}"))
    for pair in record.get("dynamic", []):
        parts += [("question", str(pair["question"])), ("answer", str(pair["answer"]))]
    return [(name, text) for name, text in parts if text]
