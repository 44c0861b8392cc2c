"""Descriptors of all stages to one verbalized record a picture, and what was left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis.common.errors import NothingDoneError
from lavis.common.storage import AtomicFile, write_text
from lavis.datasets.json_values import json_line
from lavis.datasets.records import JsonLinesFile
from lavis.datasets.scenes import region_entries

LISTS = ("captions", "narratives", "dynamic")


def tell(record: dict[str, Any], descriptors: Mapping[str, Any]) -> None:
    """Add to a record what one stage says of its picture."""
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


def write_results(folder: Path, names: Sequence[str], files: Sequence[JsonLinesFile]) -> Any:
    """Write `verbalized.jsonl`, `rejects.jsonl` and `summary.json` in one pass; returns the last.

    Args:
        folder: of the run.
        names: of the stages, the pictures' first.
        files: their descriptors, each with a line for every picture.

    Raises:
        NothingDoneError: nothing could be said of any picture.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    by_stage: dict[str, Counter[str]] = {name: Counter() for name in names}
    with (
        AtomicFile(folder / "verbalized.jsonl") as output,
        AtomicFile(folder / "rejects.jsonl") as rejects,
    ):
        for row in range(len(files[0])):
            said = [file.read(row) for file in files]
            problems = _problems(names, said)
            for problem in problems:
                line = json.dumps({"image": said[0]["image"], "row": row, **problem})
                rejects.write(line.encode("ascii") + b"\n")
                reasons[f"{problem['stage']}: {problem['reason'].split(':')[0]}"] += 1
                by_stage[problem["stage"]]["failed"] += 1
            if any(problem["rejected"] for problem in problems):
                counts["rejected"] += 1
                continue
            record = _record(said)
            output.write(json_line(record, ascii_only=True) + b"\n")
            _count(record, counts)
            for name, descriptors in zip(names[1:], said[1:], strict=True):
                by_stage[name]["described"] += len(descriptors) > 1
    summary = {
        "pictures": len(files[0]),
        **{key: counts[key] for key in ("written", "rejected", *_COUNTED)},
        "reasons": dict(sorted(reasons.items())),
        "stages": {name: dict(sorted(by_stage[name].items())) for name in names},
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    if not counts["written"]:
        raise NothingDoneError(f"{folder}: every picture was rejected; see rejects.jsonl")
    return summary


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
    """Return what went wrong: a picture that is left out, or something of it that is missing."""
    found: list[dict[str, Any]] = []
    for name, descriptors in zip(names, said, strict=True):
        if "reject" in descriptors:
            return [{"stage": name, "reason": descriptors["reject"], "rejected": True}]
        for reason in descriptors.get("failed", []):
            found.append({"stage": name, "reason": reason, "rejected": False})
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
