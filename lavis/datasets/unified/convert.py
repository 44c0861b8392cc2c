"""From items of a published file to a record file: streamed, rejects with reasons, all or nothing.

A record is one picture with candidate texts: `image`, `references` (region id -> `boxes` in pixels,
`obj_guess`), `text_input` (words, and lists of region ids), `answer_prefix`, `choices` (each with
`text_output`, and `score` by people or `truth`), `label`, `instance_id`, `group`.
"""

from __future__ import annotations

import abc
import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lavis.common.errors import RecordError
from lavis.common.refusals import record_errors
from lavis.common.storage import AtomicFile
from lavis.datasets.lck_record import check_inside, make_region
from lavis.datasets.unified.files import Item


class Converter(abc.ABC):
    """Reads one benchmark's published files."""

    @classmethod
    @abc.abstractmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the benchmark's own flags; their names are the constructor's arguments."""

    @abc.abstractmethod
    def items(self) -> Iterator[Item]:
        """Yield what the files hold, in their order."""

    @abc.abstractmethod
    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        """Return the records of one item; raises `RecordError` where it cannot be used."""


def convert(
    converter: Converter, output: Path, *, rejects: Path, limit: int | None = None
) -> dict[str, Any]:
    """Write the records and the rejects.

    An item that lacks a field or has one of another type is a reject, like one whose regions cannot
    be drawn.

    Args:
        output: record file.
        rejects: lines of file, place and reason.
        limit: stop after so many records.

    Returns:
        `items`, `records`, `rejected`, `reasons` (fixed phrase -> count).
    """
    counts: Counter[str] = Counter(items=0, records=0, rejected=0)
    reasons: Counter[str] = Counter()
    with ExitStack() as stack:
        lines = stack.enter_context(AtomicFile(output))
        bad = stack.enter_context(AtomicFile(rejects))
        for item in converter.items():
            if limit is not None and counts["records"] >= limit:
                break
            counts["items"] += 1
            try:
                made = _made(converter, item)
            except RecordError as error:
                counts["rejected"] += 1
                reasons[error.reason.split(":", 1)[0]] += 1
                bad.write(_line({**item.place, "reason": error.reason}))
                continue
            for record in made[: None if limit is None else limit - counts["records"]]:
                lines.write(_line(record))
                counts["records"] += 1
    return {**counts, "reasons": dict(reasons.most_common())}


def _made(converter: Converter, item: Item) -> list[dict[str, Any]]:
    if item.error is not None:
        raise RecordError(item.error)
    with record_errors():
        return list(converter.records(item.value))


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def make_record(
    *,
    image: str,
    instance_id: str,
    question: Sequence[Any],
    candidates: Sequence[Sequence[Any]],
    references: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    answer_prefix: str = "Answer:",
    label: int | None = None,
    scores: Sequence[Any] | None = None,
    truths: Sequence[int] | None = None,
    group: str | None = None,
) -> dict[str, Any]:
    """Return a checked record.

    Args:
        image: path below the folder of all pictures.
        question: `text_input`, words and lists of region ids.
        candidates: C token lists.
        references: region id -> entry.
        size: width and height of the picture, where known: a box outside it is an error.
        label: the right candidate.
        scores: of each candidate, or a list of one by each rater.
        truths: 0 or 1 for each candidate.
        group: what results are also listed by.

    Raises:
        RecordError: fewer than two candidates, an empty one, a label outside, a bad box.
    """
    if len(candidates) < 2:
        raise RecordError(f"too few candidates: {len(candidates)}")
    if not all(candidates):
        raise RecordError("empty candidate: one has no words")
    if label is not None and not 0 <= label < len(candidates):
        raise RecordError(f"wrong label: {label} of {len(candidates)} candidates")
    regions = [make_region(int(name), entry) for name, entry in (references or {}).items()]
    if size is not None:
        check_inside(regions, size)
    choices: list[dict[str, Any]] = [{"text_output": list(tokens)} for tokens in candidates]
    for key, values in (("score", scores), ("truth", truths)):
        if values is not None:
            for choice, value in zip(choices, values, strict=True):
                choice[key] = value
    record: dict[str, Any] = {
        "image": image,
        "instance_id": instance_id,
        "references": dict(references or {}),
        "text_input": list(question),
        "answer_prefix": answer_prefix,
        "choices": choices,
    }
    if label is not None:
        record["label"] = label
    if group is not None:
        record["group"] = group
    return record


def join_path(folder: str, name: str) -> str:
    """Return `folder/name` with single slashes; `name` alone where there is no folder."""
    return f"{folder.strip('/')}/{name}" if folder.strip("/") else name


def words(text: str) -> list[str]:
    """Return a text's blank-separated words; raises `RecordError` where it is not a text."""
    if not isinstance(text, str):
        raise RecordError(f"wrong type: {text!r:.60} is not a text")
    return text.split()


def mentioned(tokens: Iterable[Any]) -> list[int]:
    """Return the region ids of token lists, in the order of their first mention."""
    return list(dict.fromkeys(i for token in tokens if isinstance(token, list) for i in token))


NUMBER = re.compile(r"\b\d+\b")


def numbers_to_ids(text: str, people: int) -> list[Any]:
    """Return words with whole numbers from 1 to `people` as region ids from 0.

    VisualCOMET writes people as numbers from 1, the place of their box in the picture's metadata.
    """
    tokens: list[Any] = []
    for word in words(text):
        place = 0
        for found in NUMBER.finditer(word):
            if 1 <= int(found.group()) <= people:
                if word[place : found.start()]:
                    tokens.append(word[place : found.start()])
                tokens.append([int(found.group()) - 1])
                place = found.end()
        if word[place:]:
            tokens.append(word[place:])
    return tokens
