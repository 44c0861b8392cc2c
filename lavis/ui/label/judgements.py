"""People's judgements on disk: one append-only file per annotator.

People change their minds, so the last line of a record counts and the earlier ones stay as its
history (a journal keeps the first). Every line is synced before the page says it is saved; a line
torn by a crash is ended by the next one and skipped when reading. Several processes may write for
one annotator: a lock file orders them, and each reads the others' lines.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

from lavis.common.errors import REFUSALS, ConfigError, record_errors
from lavis.common.storage.atomic import sync_folder
from lavis.datasets.lck.record import read_score
from lavis.datasets.lck.tokens import read_region_ids

logger = logging.getLogger(__name__)

Verdict = Literal["accept", "reject", "unsure", "skip"]
LABELS = ("accept", "reject")  # the verdicts that are labels
COMMENT_LENGTH = 2000  # characters
_PLAIN = ("comment", "")  # what most judgements lack is not written
_KEYED = ("image", "index", "question", "answer", "rationale", "full_text_input", "text_input")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One person's judgement of one record.

    Attributes:
        key: identity of the record's content, from `content_key`.
        verdict: `unsure` (looked at) and `skip` (passed over) are no labels, but take the record
            out of the person's queue.
        qa_score, r_score: 0 (wrong) to 1 (right) for question with answer, and rationale.
        seconds: time the person looked at it, or None.
        time: when, UTC.
        instance: the record's id, for readers of the file.
        row: of the corpus, where it was judged; a hint, since files change.
    """

    key: str
    annotator: str
    verdict: Verdict
    qa_score: float | None = None
    r_score: float | None = None
    seconds: float | None = None
    time: str = ""
    instance: str = ""
    comment: str = ""
    row: int | None = None

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise ConfigError(f"verdict is {self.verdict!r}; use accept, reject, unsure or skip")
        if not isinstance(self.comment, str) or not isinstance(self.row, (int, type(None))):
            raise ConfigError("comment is a text, row a number")
        for name in ("qa_score", "r_score"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; use a number from 0 to 1")


def content_key(record: Mapping[str, Any]) -> str:
    """Return a hash of what a person judges: image, drawn regions, texts, and the record's id.

    Raises:
        RecordError: `region` is no list of ids.
    """
    with record_errors("malformed record"):
        return _content_key(record)


def _content_key(record: Mapping[str, Any]) -> str:
    shown = set(read_region_ids(record, "region"))
    boxes = record.get("references")
    if isinstance(boxes, list):
        boxes = [e for e in boxes if isinstance(e, dict) and _number(e.get("name")) in shown]
    parts = [record.get("region"), boxes, *(record.get(name) for name in _KEYED)]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=12).hexdigest()


def _number(name: Any) -> int | None:
    return int(name) if re.fullmatch(r"-?\d{1,18}", str(name)) else None


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class JudgementFile:
    """One annotator's judgements in a file, made at the first; safe for threads and processes."""

    def __init__(self, path: Path, annotator: str) -> None:
        self.path = path
        self.annotator = annotator
        self.damaged = 0  # lines that could not be read
        self._latest: dict[str, Judgement] = {}
        self._last: Judgement | None = None
        self._read_to = 0  # bytes
        self._lock = threading.RLock()

    def append(self, judgement: Judgement) -> None:
        """Write one judgement, synced to disk; raises `ConfigError` for another annotator's."""
        from filelock import FileLock

        if judgement.annotator != self.annotator:
            raise ConfigError(f"{self.path}: belongs to {self.annotator}")
        values = dataclasses.asdict(judgement)
        text = json.dumps({k: v for k, v in values.items() if v is not None and (k, v) != _PLAIN})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self._lock, FileLock(f"{self.path}.lock"), open(self.path, "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            torn = False
            if end:
                file.seek(end - 1)
                torn = file.read(1) != b"\n"
            file.write((b"\n" if torn else b"") + text.encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self.path.parent)

    def latest(self) -> dict[str, Judgement]:
        """Return the last judgement of each record, by key; reads newly written lines."""
        with self._lock:
            self._read_new()
            return dict(self._latest)

    def last(self) -> Judgement | None:
        """Return the most recent judgement."""
        with self._lock:
            self._read_new()
            return self._last

    def _read_new(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn, or being written
                self._read_to += len(line)
                judgement = self._parse(line)
                if judgement is not None:
                    self._latest[judgement.key] = self._last = judgement

    def _parse(self, line: bytes) -> Judgement | None:
        try:
            node = json.loads(line)
            known = {f.name for f in dataclasses.fields(Judgement)}
            for name in ("qa_score", "r_score", "seconds"):
                read_score(node, name)
            if not isinstance(node["key"], str) or node["annotator"] != self.annotator:
                raise ValueError("another annotator's")
            return Judgement(**{k: v for k, v in node.items() if k in known})
        except REFUSALS:
            self.damaged += 1
            logger.warning(
                "%s: passed over a damaged line before byte %d", self.path, self._read_to
            )
            return None


class JudgementStore:
    """The files of all annotators in one folder.

    Args:
        folder: made at the first judgement.
        annotators: names in the order in which labels are exported.

    Raises:
        ConfigError: no name, an empty one, or one twice.
    """

    def __init__(self, folder: str | Path, annotators: Sequence[str]) -> None:
        names = [name.strip() for name in annotators]
        if not names or not all(names) or len(set(names)) != len(names):
            raise ConfigError(f"--annotators {','.join(annotators)}: write distinct names, as a,b")
        self.folder = Path(folder)
        self.annotators = names
        self._files = {n: JudgementFile(self.folder / file_name(n), n) for n in names}

    def file(self, annotator: str) -> JudgementFile:
        """Return an annotator's file; raises `ConfigError` for an unknown annotator."""
        if annotator not in self._files:
            names = ", ".join(self.annotators)
            raise ConfigError(f"no annotator {annotator!r}; there are: {names}")
        return self._files[annotator]

    def labels(self) -> dict[str, dict[str, Judgement]]:
        """Return annotator -> key -> label; skipped and unsure records are left out."""
        return only_labels(self.judgements())

    def judgements(self) -> dict[str, dict[str, Judgement]]:
        """Return annotator -> key -> judgement, whatever the verdict."""
        return {name: self._files[name].latest() for name in self.annotators}


def only_labels(
    judgements: Mapping[str, Mapping[str, Judgement]],
) -> dict[str, dict[str, Judgement]]:
    """Return annotator -> key -> judgement without `unsure` and `skip`, which are no labels."""
    return {
        name: {key: one for key, one in mine.items() if one.verdict in LABELS}
        for name, mine in judgements.items()
    }


def known_annotators(folder: str | Path) -> list[str]:
    """Return the annotators that have a file in a folder, sorted."""
    names = set()
    for path in Path(folder).glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                names.add(str(json.loads(line)["annotator"]))
                break
            except REFUSALS:
                continue
    return sorted(names)


def file_name(annotator: str) -> str:
    """Return a file name for any name: readable, no path, distinct for distinct names."""
    digest = hashlib.blake2b(annotator.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    plain = re.sub(r"[^A-Za-z0-9]+", "-", annotator).strip("-")[:40] or "annotator"
    return f"{plain}-{digest}.jsonl"
