"""Journal of a generation to its files: corpus, rejects, summary; duplicates fall out here."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis.common.journal import JournalReader
from lavis.common.storage import AtomicFile, write_text
from lavis.datasets.json_values import json_line
from lavis.llm.budget import Totals
from lavis.llm.region_text import normalized
from lavis.tasks.generation import Generation


def write_results(
    generation: Generation, reader: JournalReader, folder: Path, *, compress: bool, totals: Totals
) -> dict[str, Any]:
    """Write `corpus.jsonl` (or `.zst`), `rejects.jsonl` and `summary.json`; return the summary.

    Records come in the order of the data, whatever the order in which replies came. `index` is
    `<source>-<n>` with n = row * num_items + place in the reply, so it is the same after any
    number of restarts. Of items of one picture that say the same, the first stays.
    """
    by_source: Counter[str] = Counter()
    by_reason: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    pictures = rejected = 0
    row, seen = -1, set[str]()
    path = folder / f"corpus.jsonl{'.zst' if compress else ''}"
    with _lines(path, compress) as corpus, AtomicFile(folder / "rejects.jsonl") as rejects:
        for unit, payload in reader.iterate():
            unit_row, prompt = generation.place(unit)
            if unit_row != row:
                row, seen = unit_row, set()
                has_any = False
            origin = {**generation.store.place(row), "source": prompt.name}
            bad = [{**origin, **reject} for reject in payload.get("rejects", [])]
            if payload.get("repaired"):
                repaired[_phrase(payload["repaired"])] += 1
            for record in payload.get("records", []):
                position = record.pop("position")
                key = f"{normalized(record['question'])} | {normalized(record['answer'])}"
                if key in seen:
                    item = {part: record[part] for part in ("question", "answer")}
                    bad.append({**origin, "reason": "duplicate", "position": position, **item})
                    continue
                seen.add(key)
                number = row * prompt.num_items + position
                place = {"split": generation.config.split, "index": f"{prompt.name}-{number}"}
                line = {"image": record.pop("image"), "source": prompt.name, **place, **record}
                corpus.write(json_line(line) + b"\n")
                by_source[prompt.name] += 1
                if not has_any:
                    pictures, has_any = pictures + 1, True
            for reject in bad:
                rejects.write(json.dumps(reject).encode("ascii") + b"\n")
                by_reason[_phrase(reject["reason"])] += 1
            rejected += len(bad)
    summary = {
        "complete": reader.units == generation.units,
        "stopped_by": generation.stopped or None,
        "pictures": len(generation.store),
        "pictures_with_records": pictures,
        "requests_planned": generation.units,
        "requests_finished": reader.units,
        "left_for_next_start": generation.units - reader.units,
        "records": by_source.total(),
        "records_by_source": dict(sorted(by_source.items())),
        "rejected": rejected,
        "rejected_by_reason": dict(by_reason.most_common()),
        "repaired_by_reason": dict(repaired.most_common()),
        "spent": _spent(totals),
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _spent(totals: Totals) -> dict[str, Any]:
    return {
        "requests_sent": totals.requests,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "cost": round(totals.cost, 6),
        "requests_of_unknown_cost": totals.unknown,
    }


def _phrase(reason: str) -> str:
    """Return the fixed phrase a reason begins with; HTTP errors keep their status."""
    if reason.startswith("HTTP "):
        return reason[:8]
    return reason.split(":")[0]


@contextlib.contextmanager
def _lines(path: Path, compress: bool) -> Iterator[Any]:
    with AtomicFile(path) as file:
        if not compress:
            yield file
            return
        import zstandard

        with zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False) as packed:
            buffered = io.BufferedWriter(packed, 1 << 18)  # type: ignore[type-var]
            yield buffered
            buffered.flush()
            buffered.detach()
