"""Export an LCK corpus of any size as a Hugging Face dataset folder: Parquet shards and a card.

    python scripts/export_corpus.py kept/test_filtered_0.8.jsonl --output lck_hf \\
        --license cc-by-4.0 --critic critic_ft --threshold 0.8

Rows are streamed. Bad records go to `rejects.jsonl` with the reason. The shards are record files
for our own data sets as well. Exit status: 0 all rows exported, 1 some or all
rejected, 2 a flag or a file cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq

from lavis.common.command import at_least, check_outputs, command
from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.errors import ConfigError, NothingDoneError, RecordError
from lavis.common.storage.atomic import AtomicFile, AtomicPath, write_text
from lavis.datasets.files.formats import expand_paths, open_records
from lavis.datasets.files.json_values import json_line
from lavis.datasets.lck.record import check_tokens, read_region_ids, read_score

GROUP = 2000  # rows of a row group, which readers keep decoded
PARTS = ("question", "answer", "rationale")
_SPLIT = re.compile(r"[\w-]+(\.[\w-]+)*")
_SPLIT_RULE = "letters, digits, _ and -, with single dots between them"
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("image", "source", "split", "index")]
    + [(name, pa.list_(pa.int64())) for name in ("region", "region_all")]
    + [(name, pa.string()) for name in ("references", *PARTS, *(f"{p}_text" for p in PARTS))]
    + [("prediction", pa.float64()), ("extra", pa.string())]
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILES", help="jsonl, .gz, .zst, parquet, tar")
    parser.add_argument("--output", type=Path, required=True, help="folder that is written")
    parser.add_argument("--split", help="of all rows (default: each record's own, else train)")
    parser.add_argument(
        "--shard-rows", type=at_least(1), default=100_000, help="rows of a Parquet file"
    )
    parser.add_argument("--name", help="title of the card (default: the folder's name)")
    parser.add_argument("--license", default="other", help="of the texts")
    parser.add_argument("--picture-source", help="where the pictures come from")
    parser.add_argument("--critic", help="name and version of the critic that filtered")
    parser.add_argument("--threshold", type=float, help="the score that rows reached")
    parser.add_argument("--cache-dir", help="where compressed files are unpacked")
    return parser.parse_args(argv)


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
        """Give the files their names; returns how many there are."""
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
    """Return the columns of a record.

    Raises:
        RecordError: no image, or parts that are no token lists or missing.
    """
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
    """Return how a record speaks of regions: what it says itself, else by ids or by words."""
    if isinstance(record.get("style"), str):
        return record["style"]
    tokens = [item for part in PARTS for item in record.get(part) or []]
    return "ids" if any(isinstance(item, list) for item in tokens) else "description"


def _json(value: Any) -> str:
    return json_line(value).decode("utf-8")


def export(args: argparse.Namespace) -> int:
    """Write shards, rejects and the card; returns how many records were rejected.

    Raises:
        ConfigError: `--split` cannot be part of a file's name, `--threshold` is no number, or the
            export would write over its input.
        NothingDoneError: no record can be exported.
    """
    if args.threshold is not None and not math.isfinite(args.threshold):
        raise ConfigError(f"--threshold: {args.threshold} found, expected a finite number")
    if args.split is not None and not _SPLIT.fullmatch(args.split):
        raise ConfigError(f"--split: {args.split!r} found, expected {_SPLIT_RULE}")
    check_outputs([args.output / "rejects.jsonl"], expand_paths(args.files))
    store = open_records(args.files, cache_dir=args.cache_dir)
    folder = args.output / "data"
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Shards] = {}
    counts: dict[str, Counter[str]] = {k: Counter() for k in ("Source", "Style", "Regions")}
    images: set[int] = set()
    rejected = 0
    with AtomicFile(args.output / "rejects.jsonl") as rejects:
        for index in range(len(store)):
            try:
                record = store.read(index)
                row = to_row(record, args.split)
            except RecordError as error:
                rejected += 1
                line = {"row": index, **store.place(index), "reason": error.reason}
                rejects.write(json.dumps(line).encode() + b"\n")
                continue
            name = row["split"]
            if name not in splits:
                splits[name] = Shards(folder, name, args.shard_rows)
            splits[name].write(row)
            images.add(hash(row["image"]))
            counts["Source"][row["source"] or "not stated"] += 1
            counts["Style"][style_of(record)] += 1
            counts["Regions"][str(len(row["region"]))] += 1
    if not splits:
        raise NothingDoneError(
            f"{', '.join(args.files)}: none of {len(store)} records can be exported"
        )
    for old in folder.glob("*.parquet"):
        old.unlink()  # of an earlier export into the same folder
    written: list[dict[str, Any]] = [
        {"name": n, "rows": s.rows, "files": s.finish()} for n, s in sorted(splits.items())
    ]
    write_text(args.output / "README.md", card(args, written, counts, len(images), rejected))
    rows = sum(split["rows"] for split in written)
    print(f"{args.output}: {rows} rows of {len(images)} pictures, {rejected} records rejected")
    return rejected


def card(
    args: argparse.Namespace,
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
        name=args.name or args.output.resolve().name,
        license=args.license,
        picture_source=args.picture_source,
        critic=args.critic,
        threshold=args.threshold,
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


@command
def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit status."""
    return 1 if export(parse_args(argv)) else 0


if __name__ == "__main__":
    sys.exit(main())
