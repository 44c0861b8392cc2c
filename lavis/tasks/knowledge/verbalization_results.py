"""Descriptors of all stages to one verbalized record an image, and what was left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lavis.common.errors import NothingDoneError
from lavis.common.storage.atomic import AtomicFile, write_text
from lavis.datasets.files.json_values import json_line
from lavis.datasets.files.records import JsonLinesFile
from lavis.datasets.lck.scenes import region_entries
from lavis.llm.money.ledger import folder_totals
from lavis.tasks.knowledge.reasons import count_phrases, money, reason_phrase
from lavis.tasks.knowledge.verbalization_report import VerbalizationReport
from lavis.tasks.knowledge.verbalization_stages import FAILURES

LISTS = ("captions", "narratives", "dynamic")
_KINDS = {"failed": "failed", "refused": "endpoint", "left": "left"}  # of what is missing


def tell(record: dict[str, Any], descriptors: Mapping[str, Any]) -> None:
    """Add to a record what one stage says of its image."""
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
            said = regions.get(str(number), {})
            if said.get("caption"):
                entry["caption"] = said["caption"]
            words = [_word(attribute) for attribute in said.get("attributes", [])]
            if words:
                entry["attributes"] = list(dict.fromkeys([*entry.get("attributes", []), *words]))


def write_results(
    folder: Path,
    names: Sequence[str],
    files: Sequence[JsonLinesFile],
    report: VerbalizationReport,
) -> dict[str, Any]:
    """Write `verbalized.jsonl`, `rejects.jsonl`, `summary.json` and `report.html` in one pass.

    Args:
        folder: of the run.
        names: of the stages, the images' first.
        files: their descriptors, each with a line for every image.
        report: of the page.

    Returns:
        The summary.

    Raises:
        NothingDoneError: nothing could be said of any image, or by one of the stages.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    left: Counter[str] = Counter()
    by_stage: dict[str, Counter[str]] = {name: Counter() for name in names}
    with (
        AtomicFile(folder / "verbalized.jsonl") as output,
        AtomicFile(folder / "rejects.jsonl") as rejects,
    ):
        for row in range(len(files[0])):
            said = [file.read(row) for file in files]
            image, record = said[0]["image"], None
            problems = _problems(names, said)
            for problem in problems:
                line = json.dumps({"image": image, "row": row, **problem})
                rejects.write(line.encode("ascii") + b"\n")
                counted = left if "left" in problem else reasons
                counted[f"{problem['stage']}: {reason_phrase(problem['reason'])}"] += 1
                by_stage[problem["stage"]][problem["kind"]] += 1
            if any(problem["rejected"] for problem in problems):
                counts["rejected"] += 1
            else:
                record = _record(said)
                output.write(json_line(record, ascii_only=True) + b"\n")
                _count(record, counts)
                for name, descriptors in zip(names[1:], said[1:], strict=True):
                    by_stage[name]["described"] += says_something(descriptors)
            report.note(row, image, record, problems)
    silent = [n for n in names[1:] if by_stage[n].total() and not by_stage[n]["described"]]
    summary = {
        "complete": not left and not silent and counts["written"] > 0,
        "stopped_by": None,
        "pictures": len(files[0]),
        **{key: counts[key] for key in ("written", "rejected", *_COUNTED)},
        "reasons": dict(sorted(reasons.items())),
        "left": left.total(),
        "left_by_reason": dict(sorted(left.items())),
        "stages": {name: dict(sorted(by_stage[name].items())) for name in names},
        "spent": money(folder_totals(folder)),
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    report.write(folder / "report.html", summary)
    if not counts["written"]:
        raise NothingDoneError(f"{folder}: every image was rejected; see rejects.jsonl")
    if silent and not left:
        _refuse_silence(folder, silent[0], reasons)
    return summary


def _refuse_silence(folder: Path, stage: str, reasons: Mapping[str, int]) -> NoReturn:
    why = {key: count for key, count in reasons.items() if key.split(":")[0] == stage}
    raise NothingDoneError(
        f"{folder}: not one image was described by stages.{stage} ({count_phrases(why)}); "
        "see rejects.jsonl"
    )


def write_stopped(folder: Path, images: int, reason: str, left: Mapping[str, int]) -> None:
    """Write `summary.json` of a run that was stopped; other results stay as they are.

    Args:
        folder: of the run.
        pictures: of all.
        reason: what stopped it.
        left: stage -> images that it has not described.
    """
    summary = {
        "complete": False,
        "stopped_by": reason,
        "pictures": images,
        "left_of_stages": dict(left),
        "spent": money(folder_totals(folder)),
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def says_something(descriptors: Mapping[str, Any]) -> bool:
    """Return whether a stage had anything to say of an image."""
    return any(value for key, value in descriptors.items() if key not in ("image", *FAILURES))


_COUNTED = ("regions", "captioned_regions", "attributes", "concepts", *LISTS)


def _record(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = dict(said[0]["record"])
    for descriptors in said[1:]:
        tell(record, descriptors)
    for entry in region_entries(record).values():
        entry.setdefault("caption", "")
        entry.setdefault("attributes", [])
    first = {key: record[key] for key in ("image", "region_locations", "width", "height")}
    return {
        **first,
        "concepts": record.get("concepts", {}),
        **{key: record.get(key, []) for key in LISTS},
    }


def _problems(names: Sequence[str], said: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what went wrong: an image that is left out, or something of it that is missing."""
    found: list[dict[str, Any]] = []
    for name, descriptors in zip(names, said, strict=True):
        if "reject" in descriptors:
            problem = {"stage": name, "reason": descriptors["reject"], "rejected": True}
            return [{**problem, "kind": "picture"}]
        for key, kind in _KINDS.items():
            for reason in descriptors.get(key, []):
                left = {"left": True} if kind == "left" else {}
                problem = {"stage": name, "reason": reason, "rejected": False, "kind": kind}
                found.append({**problem, **left})
    return found


def _count(record: Mapping[str, Any], counts: Counter[str]) -> None:
    entries = region_entries(record).values()
    counts["written"] += 1
    counts["regions"] += len(entries)
    counts["captioned_regions"] += sum(bool(entry["caption"]) for entry in entries)
    counts["attributes"] += sum(len(entry["attributes"]) for entry in entries)
    counts["concepts"] += sum(map(len, record["concepts"].values()))
    for key in LISTS:
        counts[key] += len(record[key])


def _word(attribute: Any) -> str:
    return str(attribute["text"]) if isinstance(attribute, Mapping) else str(attribute)
