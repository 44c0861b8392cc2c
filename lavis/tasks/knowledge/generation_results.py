"""Outcomes of a generation to its files: corpus, rejects, summary; duplicates fall out here."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis.common.storage.atomic import AtomicFile, write_text
from lavis.datasets.files.json_values import json_line
from lavis.llm.replies.region_text import normalized
from lavis.tasks.knowledge.generation import Generation
from lavis.tasks.knowledge.generation_config import GenerationRunConfig
from lavis.tasks.knowledge.generation_outcomes import Outcome, Outcomes
from lavis.tasks.knowledge.generation_report import GenerationReport
from lavis.tasks.knowledge.reasons import reason_phrase


@dataclass
class _Source:
    """What came of one prompt's requests."""

    requests: int = 0
    records: int = 0
    rejected: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def told(self) -> dict[str, Any]:
        """Return the figures, with the tokens that a record took."""
        tokens = self.prompt_tokens + self.completion_tokens
        each = round(tokens / self.records, 1) if self.records else None
        return {**vars(self), "tokens_per_record": each}


@dataclass
class _Counts:
    finished: int = 0
    pictures: int = 0
    sources: dict[str, _Source] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)


class _Image:
    """Items that were written of the image at hand, by which duplicates are found."""

    def __init__(self, row: int) -> None:
        self.row, self.seen = row, set[str]()

    def is_new(self, record: dict[str, Any]) -> bool:
        """Return whether no item before it says the same."""
        key = f"{normalized(record['question'])} | {normalized(record['answer'])}"
        new = key not in self.seen
        self.seen.add(key)
        return new


def write_results(
    generation: Generation,
    outcomes: Outcomes,
    config: GenerationRunConfig,
    *,
    spent: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `corpus.jsonl` (or `.zst`), `rejects.jsonl`, `summary.json` and `report.html`.

    Records come in the order of the data, whatever the order in which replies came. `index` is
    `<source>-<n>` with n = row * num_items + place among the items of the reply that could be read,
    so it is the same after any number of restarts. Of items of one image that say the same, the
    first stays. Rejects tell their `kind`: `item` where one item of a reply was dropped, else as in
    `generation_outcomes`; those with `left` are not rejected but asked again by the next start.

    Returns:
        The summary.
    """
    folder, compress = Path(config.output_dir), config.compress
    counts = _Counts(sources={prompt.name: _Source() for prompt in generation.config.prompts})
    report = GenerationReport(generation, config.image_root, config.report_examples)
    image = _Image(-1)
    path = folder / f"corpus.jsonl{'.zst' if compress else ''}"
    with _lines(path, compress) as corpus, AtomicFile(folder / "rejects.jsonl") as rejects:
        for outcome in outcomes.read():
            row, _ = generation.place(outcome.unit)
            if row != image.row:
                image = _Image(row)
            records, bad = _sort_out(generation, outcome, image, counts)
            for record in records:
                corpus.write(json_line(record) + b"\n")
            for reject in bad:
                rejects.write(json.dumps(reject).encode("ascii") + b"\n")
            report.note(row, records, bad)
    summary = _summary(generation, counts, spent)
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    report.write(folder / "report.html", summary)
    return summary


def _sort_out(
    generation: Generation, outcome: Outcome, image: _Image, counts: _Counts
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the lines of a unit for the corpus and for the rejects, and count them."""
    row, prompt = generation.place(outcome.unit)
    payload, name = outcome.payload, prompt.name
    origin = {**generation.store.place(row), "source": name}
    is_left = outcome.kind == "left"
    bad = [
        {**origin, **reject, "kind": "item" if "position" in reject else outcome.kind}
        for reject in payload.get("rejects", [])
    ]
    if payload.get("repaired"):
        counts.repaired[reason_phrase(payload["repaired"])] += 1
    had_any = bool(image.seen)
    kept = []
    for record in payload.get("records", []):
        position, number = record.pop("position"), record.pop("number")
        if not image.is_new(record):
            item = {part: record[part] for part in ("question", "answer")}
            reject = {"reason": "duplicate", "position": position, **item, "kind": "item"}
            bad.append({**origin, **reject})
            continue
        place = {
            "split": generation.config.split,
            "index": f"{name}-{row * prompt.num_items + number}",
        }
        kept.append({"image": record.pop("image"), "source": name, **place, **record})
    source = counts.sources[name]
    source.requests += outcome.kind != "data"
    for reject in bad:
        if is_left:
            reject["left"] = True
            counts.left[reason_phrase(reject["reason"])] += 1
        else:
            counts.reasons[reason_phrase(reject["reason"])] += 1
            counts.kinds[reject["kind"]] += 1
            source.rejected += 1
    tokens = payload.get("tokens", [0, 0])
    source.prompt_tokens += tokens[0]
    source.completion_tokens += tokens[1]
    source.records += len(kept)
    counts.finished += not is_left
    counts.pictures += bool(kept) and not had_any
    return kept, bad


def _summary(generation: Generation, counts: _Counts, spent: Mapping[str, Any]) -> dict[str, Any]:
    left = generation.units - counts.finished
    untried = left - counts.left.total()
    by_reason = dict(counts.left.most_common()) | ({"not asked yet": untried} if untried else {})
    records = sum(source.records for source in counts.sources.values())
    by_source = {name: source.records for name, source in sorted(counts.sources.items())}
    return {
        "complete": left == 0 and records > 0,
        "stopped_by": str(generation.stop) if generation.stop else None,
        "pictures": len(generation.store),
        "pictures_with_records": counts.pictures,
        "requests_planned": generation.units,
        "requests_finished": counts.finished,
        "left_for_next_start": left,
        "left_by_reason": by_reason,
        "records": records,
        "records_by_source": {name: count for name, count in by_source.items() if count},
        "rejected": counts.reasons.total(),
        "rejected_by_kind": dict(counts.kinds.most_common()),
        "rejected_by_reason": dict(counts.reasons.most_common()),
        "repaired_by_reason": dict(counts.repaired.most_common()),
        "by_source": {name: source.told() for name, source in sorted(counts.sources.items())},
        "spent": dict(spent),
    }


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
