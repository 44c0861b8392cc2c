"""Outcomes of a generation to its files: corpus, rejects, summary, page; duplicates are removed.

Records come in the order of the data, whatever the order of replies. `index` is `<source>-<n>` with
n = row * num_items + place among the readable items of the reply, so it is the same after any
number of restarts. Of duplicate items of one image, the first stays. Rejects have a `kind`: `item`
if one item of a reply was dropped, else as in `outcomes`; those with `left` are not rejected but
requested again by the next start.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis.common.errors import RecordError
from lavis.common.storage.atomic import AtomicFile, write_json
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.files.json_values import json_line
from lavis.datasets.lck.scenes import SceneRegion
from lavis.llm.replies.items import FIELDS
from lavis.llm.replies.region_text import normalized, render
from lavis.tasks.knowledge.config import GenerationRunConfig
from lavis.tasks.knowledge.generation import KnowledgeGeneration
from lavis.tasks.knowledge.outcomes import Outcome, Outcomes
from lavis.tasks.knowledge.page import (
    Card,
    CardItem,
    Table,
    make_card,
    money_table,
    reason_tables,
    write_page,
)
from lavis.tasks.knowledge.reasons import ReasonCounts, Verdict, plural, reason_phrase
from lavis.tasks.report import ExampleRows

TITLES = {
    "kept": "Images with records",
    "none": "Images without a record",
    "left": "Images with requests that are left",
}
_SHOWN = 160  # characters of an example in a table
_FIGURES = ("requests", "records", "rejected", "prompt_tokens", "completion_tokens")  # of a prompt
_Lines = list[dict[str, Any]]


@dataclass
class _Counts:
    sources: dict[str, dict[str, int]]  # source -> `_FIGURES`
    reasons: ReasonCounts = field(default_factory=ReasonCounts)
    kinds: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    images: int = 0


def write_results(
    generation: KnowledgeGeneration,
    outcomes: Outcomes,
    config: GenerationRunConfig,
    *,
    spent: Mapping[str, Any],
) -> dict[str, Any]:
    """Write corpus (`.jsonl` or `.zst`), rejects, summary and page; return the summary."""
    folder = Path(config.output_dir)
    prompts = generation.config.prompts
    counts = _Counts({prompt.name: dict.fromkeys(_FIGURES, 0) for prompt in prompts})
    gallery = ExampleRows(config.report_examples, TITLES, _kind)
    path = folder / f"corpus.jsonl{'.zst' if config.compress else ''}"
    by_image = itertools.groupby(outcomes.read(), lambda one: generation.place(one.unit)[0])
    with _lines(path, config.compress) as corpus, AtomicFile(folder / "rejects.jsonl") as rejects:
        for row, of_image in by_image:
            kept, missing = _sort_out(generation, of_image, counts)
            for record in kept:
                corpus.write(json_line(record) + b"\n")
            for reject in missing:
                rejects.write(json.dumps(reject).encode("ascii") + b"\n")
            gallery.offer(row, {"kept": kept, "rejects": missing})
    summary = _summary(generation, counts, spent)
    write_json(folder / "summary.json", summary)
    _write_page(folder / "report.html", generation, config.image_root, summary, counts, gallery)
    return summary


def _sort_out(
    generation: KnowledgeGeneration, outcomes: Iterable[Outcome], counts: _Counts
) -> tuple[_Lines, _Lines]:
    """Return the lines of an image for the corpus and for the rejects, and count them."""
    kept: _Lines = []
    missing: _Lines = []
    seen: set[str] = set()  # items of the image, by which duplicates are recognized
    for outcome in outcomes:
        row, prompt = generation.place(outcome.unit)
        payload, name, is_left = outcome.payload, prompt.name, outcome.kind == "left"
        origin = {**generation.store.place(row), "source": name}
        rejects = [
            {**origin, **reject, "kind": "item" if "position" in reject else outcome.kind}
            for reject in payload.get("rejects", [])
        ]
        source = counts.sources[name]
        for record in payload.get("records", []):
            position, number = record.pop("position"), record.pop("number")
            key = f"{normalized(record['question'])} | {normalized(record['answer'])}"
            if key in seen:
                item = {part: record[part] for part in ("question", "answer")}
                duplicate = {"reason": "duplicate", "position": position, **item, "kind": "item"}
                rejects.append({**origin, **duplicate})
                continue
            seen.add(key)
            index = f"{name}-{row * prompt.num_items + number}"
            place = {"source": name, "split": generation.config.split, "index": index}
            kept.append({"image": record.pop("image"), **place, **record})
            source["records"] += 1
        for reject in rejects:
            verdict: Verdict = "left" if is_left else "rejected"
            counts.reasons.note(verdict, reject["reason"], _example(reject))
            if is_left:
                reject["left"] = True
            else:
                counts.kinds[reject["kind"]] += 1
                source["rejected"] += 1
        missing += rejects
        if payload.get("repaired"):
            counts.repaired[reason_phrase(payload["repaired"])] += 1
        tokens = payload.get("tokens", [0, 0])
        source["requests"] += outcome.kind != "data"
        source["prompt_tokens"] += tokens[0]
        source["completion_tokens"] += tokens[1]
        counts.finished += not is_left
    counts.images += bool(kept)
    return kept, missing


def _summary(
    generation: KnowledgeGeneration, counts: _Counts, spent: Mapping[str, Any]
) -> dict[str, Any]:
    reasons, sources = counts.reasons, sorted(counts.sources.items())
    left = generation.units - counts.finished
    untried = left - reasons.left.total()
    by_reason = dict(reasons.left.most_common()) | ({"not asked yet": untried} if untried else {})
    records = sum(source["records"] for source in counts.sources.values())
    return {
        "complete": left == 0 and records > 0,
        "stopped_by": str(generation.stop) if generation.stop else None,
        "pictures": len(generation.store),
        "pictures_with_records": counts.images,
        "requests_planned": generation.units,
        "requests_finished": counts.finished,
        "left_for_next_start": left,
        "left_by_reason": by_reason,
        "records": records,
        "records_by_source": {name: one["records"] for name, one in sources if one["records"]},
        "rejected": reasons.rejected.total(),
        "rejected_by_kind": dict(counts.kinds.most_common()),
        "rejected_by_reason": dict(reasons.rejected.most_common()),
        "repaired_by_reason": dict(counts.repaired.most_common()),
        "by_source": {name: _with_cost(source) for name, source in sources},
        "spent": dict(spent),
    }


def _with_cost(figures: Mapping[str, int]) -> dict[str, Any]:
    tokens = figures["prompt_tokens"] + figures["completion_tokens"]
    each = round(tokens / figures["records"], 1) if figures["records"] else None
    return {**figures, "tokens_per_record": each}


@contextlib.contextmanager
def _lines(path: Path, compress: bool) -> Iterator[Any]:
    with AtomicFile(path) as file:
        if not compress:
            yield file
            return
        import zstandard

        with zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False) as packed:
            yield packed


def _write_page(
    path: Path,
    generation: KnowledgeGeneration,
    image_root: str | None,
    summary: Mapping[str, Any],
    counts: _Counts,
    gallery: ExampleRows,
) -> None:
    root = None if image_root is None else ImageRoot(image_root)

    def card(image: Mapping[str, Any]) -> Card:
        name, regions = _regions(generation, image["row"])
        return make_card(
            root,
            name,
            regions,
            [_item(one) for one in image["kept"] + image["rejects"]],
            view=lambda: generation.view(image["row"]),
        )

    reasons = reason_tables(
        counts.reasons, summary["rejected_by_reason"], summary["left_by_reason"]
    )
    write_page(
        path,
        title="Question, answer and rationale records",
        status=_status(summary),
        tiles=[
            (summary["pictures"], "images"),
            (summary["pictures_with_records"], "images with records"),
            (summary["records"], "records"),
            (summary["rejected"], "rejects"),
            (summary["left_for_next_start"], "requests left"),
        ],
        tables=[money_table(summary["spent"]), _sources(summary["by_source"]), *reasons],
        gallery=gallery,
        card_of=card,
        note=_note(generation, root),
    )


def _note(generation: KnowledgeGeneration, root: ImageRoot | None) -> str:
    if generation.images is not None:
        return "Each is shown as the model saw it, reduced in size."
    return "Set run.image_root to show the images." if root is None else ""


def _regions(generation: KnowledgeGeneration, row: int) -> tuple[str, list[SceneRegion]]:
    """Return an image's name and the regions that one of its requests showed."""
    kinds = len(generation.config.prompts)
    regions: dict[int, SceneRegion] = {}
    name = f"record {row}"
    for unit in range(row * kinds, (row + 1) * kinds):
        with contextlib.suppress(RecordError):
            scene = generation.scene(unit)
            name = scene.image
            for region in scene.regions:
                left, top, right, bottom = region.boxes[0][:4]
                box = (left, top, right, bottom)
                regions[region.id] = SceneRegion(region.id, box, region.name)
    return name, [regions[number] for number in sorted(regions)]


def _kind(image: Mapping[str, Any]) -> str:
    if any("left" in reject for reject in image["rejects"]):
        return "left"
    return "kept" if image["kept"] else "none"


def _status(summary: Mapping[str, Any]) -> str:
    if summary["complete"]:
        return "Complete: every request is answered or set aside with its reason."
    if not summary["left_for_next_start"]:
        return "No request gave a record."
    why = f" Stopped: {summary['stopped_by']}." if summary["stopped_by"] else ""
    left, planned = summary["left_for_next_start"], plural(summary["requests_planned"], "request")
    return f"Not complete: {left:,} of {planned} left.{why}"


def _sources(by_source: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = ["prompt style", "requests", "records", "rejects", "tokens of prompts"]
    columns += ["tokens of replies", "tokens a record"]
    rows: list[list[Any]] = []
    for name, figures in by_source.items():
        each = figures["tokens_per_record"]
        each = None if each is None else round(each)
        rows.append([name, *(figures[key] for key in _FIGURES), each])
    note = "Requests that are finished; tokens of replies that were read, as the server counted."
    return Table("By prompt style", columns, rows, note)


def _item(line: Mapping[str, Any]) -> CardItem:
    """Return the card's view of a record or a reject."""
    parts = _parts(line)
    if "reason" not in line:
        return CardItem("kept", parts, source=line["source"])
    if line.get("reply"):
        parts.append(("reply", str(line["reply"])))
    verdict: Verdict = "left" if "left" in line else "rejected"
    return CardItem(verdict, parts, reason=line["reason"], source=line["source"])


def _parts(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    item = line.get("item") or line
    return [(part, _text(item[part])) for part in FIELDS if item.get(part)]


def _example(reject: Mapping[str, Any]) -> str:
    item = " / ".join(text for _, text in _parts(reject))
    text = item or str(reject.get("reply") or reject["reason"])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _text(value: Any) -> str:
    """Return words and regions as text, each region in brackets of its own."""
    if isinstance(value, str):
        return value
    split: list[Any] = []
    for token in value:
        split += [[number] for number in token] if isinstance(token, list) else [token]
    return render(split)
