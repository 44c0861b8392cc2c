"""Export an LCK corpus of any size as a Hugging Face dataset folder: Parquet shards and a card.

Rows are streamed; our own data sets read the shards as record files, too.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq

from lavis.common.command import check_outputs
from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.errors import ConfigError, NothingDoneError, RecordError
from lavis.common.storage.atomic import AtomicFile, AtomicPath, write_text
from lavis.datasets.files.formats import expand_paths, open_records
from lavis.datasets.files.json_values import json_line
from lavis.datasets.lck.record import read_score
from lavis.datasets.lck.tokens import PARTS, check_tokens, read_region_ids

GROUP = 2000  # rows of a row group, which readers keep decoded
_SPLIT = re.compile(r"[\w-]+(\.[\w-]+)*")
_SPLIT_RULE = "letters, digits, _ and -, with single dots between them"
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("image", "source", "split", "index")]
    + [(name, pa.list_(pa.int64())) for name in ("region", "region_all")]
    + [(name, pa.string()) for name in ("references", *PARTS, *(f"{p}_text" for p in PARTS))]
    + [("prediction", pa.float64()), ("extra", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a corpus' card states besides counts.

    Attributes:
        name: its title.
        license: of the texts.
        image_source: where the images come from.
        critic: name and version of the critic that filtered.
        threshold: lowest score of the rows.
    """

    name: str
    license: str = "other"
    image_source: str | None = None
    critic: str | None = None
    threshold: float | None = None


class Shards:
    """Parquet files of one split, numbered while written and named when their count is known."""

    def __init__(self, folder: Path, split: str, shard_rows: int) -> None:
        self.folder, self.split, self.shard_rows = folder, split, shard_rows
        self.rows = 0
        self._group: list[dict[str, Any]] = []
        self._parts: list[AtomicPath] = []
        self._writer: pq.ParquetWriter | None = None

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        if self._writer is None:
            self._parts.append(AtomicPath(self.folder / f"{self.split}-{len(self._parts):05d}"))
            path = self._parts[-1].__enter__()
            self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._group.append(row)
        self.rows += 1
        full = self.rows % self.shard_rows == 0
        if full or len(self._group) == GROUP:
            self._flush()
        if full:
            self._close()

    def finish(self) -> int:
        """Rename the files and return how many there are."""
        self._flush()
        self._close()
        for number, part in enumerate(self._parts):
            name = f"{self.split}-{number:05d}-of-{len(self._parts):05d}.parquet"
            part.path = self.folder / name
            part.__exit__(None, None, None)
        return len(self._parts)

    def _flush(self) -> None:
        if self._group and self._writer is not None:
            self._writer.write_table(pa.Table.from_pylist(self._group, schema=SCHEMA))
        self._group = []

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def to_row(record: Mapping[str, Any], split: str | None) -> dict[str, Any]:
    """Return a record's columns; raises `RecordError` without image, or for a bad part."""
    if not isinstance(record.get("image"), str):
        raise RecordError("missing field: image")
    name = split or str(record.get("split") or "train")
    if not _SPLIT.fullmatch(name):  # it becomes a file's name
        raise RecordError(f"bad split: {name[:60]!r}, expected {_SPLIT_RULE}")
    row: dict[str, Any] = {
        "image": record["image"],
        "source": str(record.get("source", "")),
        "split": name,
        "index": str(record.get("index", "")),
        "region": read_region_ids(record, "region"),
        "region_all": read_region_ids(record, "region_all"),
        "references": _json(record.get("references", [])),
        "prediction": read_score(record, "prediction"),
    }
    for part in PARTS:
        value = record.get(part)
        if value is None and part != "rationale":
            raise RecordError(f"missing field: {part}")
        tokens = None if value is None else check_tokens(value, part)
        row[part] = None if tokens is None else _json(tokens)
        row[f"{part}_text"] = None if tokens is None else readable(tokens)
    rest = {k: v for k, v in record.items() if k not in row}
    row["extra"] = _json(rest) if rest else None
    return row


def readable(tokens: list[Any]) -> str:
    """Return a token list as text, ids as they are."""
    parts = [
        " , ".join(f"[{i}]" for i in item) if isinstance(item, list) else str(item)
        for item in tokens
    ]
    return " ".join(parts)


def style_of(record: Mapping[str, Any]) -> str:
    """Return how a record names regions: its `style`, else `ids` where tokens hold ids."""
    if isinstance(record.get("style"), str):
        return record["style"]
    tokens = [item for part in PARTS for item in record.get(part) or []]
    return "ids" if any(isinstance(item, list) for item in tokens) else "description"


def _json(value: Any) -> str:
    return json_line(value).decode("utf-8")


def export_corpus(
    paths: Sequence[str],
    output: Path,
    facts: CardFacts,
    *,
    split: str | None = None,
    shard_rows: int = 100_000,
    cache_dir: str | None = None,
) -> int:
    """Write shards, `rejects.jsonl` and the card; returns how many records were rejected.

    Args:
        paths: record files, or folders of these.
        split: of all rows; None takes each record's own, or `train`.

    Example:
        >>> export_corpus(["kept.jsonl"], Path("lck_hf"), CardFacts(name="lck"))

    Raises:
        ConfigError: `split` cannot be part of a file's name, the threshold is no number, or the
            export would write over its input.
        NothingDoneError: no record can be exported.
    """
    if facts.threshold is not None and not math.isfinite(facts.threshold):
        raise ConfigError(f"--threshold: {facts.threshold} found, expected a finite number")
    if split is not None and not _SPLIT.fullmatch(split):
        raise ConfigError(f"--split: {split!r} found, expected {_SPLIT_RULE}")
    check_outputs([output / "rejects.jsonl"], expand_paths(paths))
    store = open_records(paths, cache_dir=cache_dir)
    folder = output / "data"
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Shards] = {}
    counts: dict[str, Counter[str]] = {k: Counter() for k in ("Source", "Style", "Regions")}
    images: set[int] = set()
    rejected = 0
    with AtomicFile(output / "rejects.jsonl") as rejects:
        for index in range(len(store)):
            try:
                record = store.read(index)
                row = to_row(record, split)
            except RecordError as error:
                rejected += 1
                line = {"row": index, **store.place(index), "reason": error.reason}
                rejects.write(json.dumps(line).encode() + b"\n")
                continue
            name = row["split"]
            if name not in splits:
                splits[name] = Shards(folder, name, shard_rows)
            splits[name].write(row)
            images.add(hash(row["image"]))
            counts["Source"][row["source"] or "not stated"] += 1
            counts["Style"][style_of(record)] += 1
            counts["Regions"][str(len(row["region"]))] += 1
    if not splits:
        raise NothingDoneError(f"{', '.join(paths)}: none of {len(store)} records can be exported")
    for old in folder.glob("*.parquet"):
        old.unlink()  # of an earlier export into the same folder
    written: list[dict[str, Any]] = [
        {"name": n, "rows": s.rows, "files": s.finish()} for n, s in sorted(splits.items())
    ]
    write_text(output / "README.md", card(facts, written, counts, len(images), rejected))
    rows = sum(part["rows"] for part in written)
    print(f"{output}: {rows} rows of {len(images)} images, {rejected} records rejected")
    return rejected


def card(
    facts: CardFacts,
    splits: list[dict[str, Any]],
    counts: Mapping[str, Counter[str]],
    images: int,
    rejected: int,
) -> str:
    """Return the data card."""
    rows = sum(split["rows"] for split in splits)
    tables = [
        ("Source", counts["Source"].most_common(50)),
        ("Style", counts["Style"].most_common()),
        ("Regions", sorted(counts["Regions"].items(), key=lambda item: int(item[0]))),
    ]
    loader = jinja2.FileSystemLoader(CONFIG_ROOT / "cards")
    options: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True}
    template = jinja2.Environment(loader=loader, **options).get_template("corpus.md.jinja")
    return template.render(
        **asdict(facts),
        size=size_category(rows),
        rows=rows,
        pictures=images,
        rejected=rejected,
        splits=splits,
        tables=tables,
    )


def size_category(rows: int) -> str:
    """Return the hub's size category."""
    names = ["1K", "10K", "100K", "1M", "10M", "100M"]
    if rows < 1000:
        return "n<1K"
    for place in range(len(names) - 1):
        if rows < 10 ** (place + 4):
            return f"{names[place]}<n<{names[place + 1]}"
    return "n>100M"
